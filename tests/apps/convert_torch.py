"""Writes published layouts with torch.save, and reads what minwm convert exports. No package but torch.

convert_torch.py save HF_FOLDER OUT   HF_FOLDER: an export of ours; OUT gets files of every layout
convert_torch.py same A B             two exports hold the same tensors, bit for bit
"""
import collections
import json
import os
import pathlib
import sys
import zipfile

import torch

TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def read_safetensors(path):
    """As the safetensors package does, with its checks of the header."""
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8:8 + length]))
    assert header.pop("__metadata__")["format"] == "pt", "what from_pretrained asks for"
    out, reached = {}, 0
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        assert begin == reached, f"a hole before {name}"
        reached = end
        tensor = torch.frombuffer(data, dtype=TYPES[entry["dtype"]], offset=8 + length + begin,
                                  count=(end - begin) // TYPES[entry["dtype"]].itemsize)
        out[name] = tensor.view(entry["shape"]).clone()
    assert 8 + length + reached == len(data)
    return out


def read_export(folder):
    folder = pathlib.Path(folder)
    folder = folder / "transformer" if (folder / "transformer").exists() else folder
    assert json.loads((folder / "config.json").read_text())["_class_name"]
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    if not index.exists():
        return read_safetensors(folder / "diffusion_pytorch_model.safetensors")
    weight_map = json.loads(index.read_text())["weight_map"]
    shards = {shard: read_safetensors(folder / shard) for shard in set(weight_map.values())}
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def save(state, out):
    def put(path, value, **options):
        path = out / path
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(value, path, **options)
        return path

    ordered = collections.OrderedDict((f"model.{name}", value) for name, value in state.items())
    ordered._metadata = collections.OrderedDict()  # as a module's state_dict() has it
    averaged = {f"model._fsdp_wrapped_module.{name}": value * 2 for name, value in state.items()}
    put("causal_cd/checkpoint_model_000200/model.pt", {"generator": ordered, "generator_ema": averaged})
    put("bidirectional/model.pt", {"generator": ordered})
    put("wrapped.pt", {"model": {
        f"model._orig_mod.blocks.{name[7:].replace('.', '._checkpoint_wrapped_module.', 1)}"
        if name.startswith("blocks.") else f"model._orig_mod.{name}": torch.nn.Parameter(value)
        for name, value in state.items()}})
    put("bare.pth", dict(state))

    # bf16, one storage for all, matrices that lie the other way round in it.
    flat = torch.cat([v.bfloat16().t().flatten() if v.dim() == 2 else v.bfloat16().flatten() for v in state.values()])
    views, begin = {}, 0
    for name, value in state.items():
        part = flat[begin:begin + value.numel()]
        views[name] = part.view(value.shape[::-1]).t() if value.dim() == 2 else part.view(value.shape)
        begin += value.numel()
    path = put("views.pt", {"generator": views})
    assert path.stat().st_size < flat.numel() * 2 + 200_000, "the storage is shared"

    put("hostile.pt", {"generator": ordered, "step": pathlib.PurePosixPath("x")})
    put("value.pt", {"generator": {**state, "step": 3}})
    put("legacy.pt", {"generator": ordered}, _use_new_zipfile_serialization=False)
    put("twice.pt", {**{f"model.{n}": v for n, v in state.items()}, **state})
    with zipfile.ZipFile(out / "bidirectional/model.pt") as source:
        with zipfile.ZipFile(out / "big.pt", "w", zipfile.ZIP_STORED) as target:
            for item in source.infolist():
                target.writestr(item, b"big" if item.filename.endswith("byteorder") else source.read(item))


def main():
    if sys.argv[1] == "save":
        save(read_export(sys.argv[2]), pathlib.Path(sys.argv[3]))
        return
    first, second = read_export(sys.argv[2]), read_export(sys.argv[3])
    assert first.keys() == second.keys()
    for name, value in first.items():
        other = second[name]
        assert value.dtype == other.dtype and value.shape == other.shape, name
        assert torch.equal(value.view(torch.uint8), other.view(torch.uint8)), name
    print(len(first))


main()
