#include "minwm/data/upstream_lmdb.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

#include <lmdb.h>

#include <ATen/ATen.h>

#include "minwm/core/error.h"

namespace minwm::data {
namespace {

void check(int code, const std::string& folder, const char* action) {
  require(code == MDB_SUCCESS, "{}: cannot {} the LMDB data: {}", folder, action,
          ::mdb_strerror(code));
}

}  // namespace

struct Lmdb::Impl {
  std::string folder;
  MDB_env* environment = nullptr;
  MDB_dbi database = 0;

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { ::mdb_env_close(environment); }

  /// Runs `body` in a read transaction.
  template <class Body>
  void read(const Body& body) const {
    MDB_txn* transaction = nullptr;
    check(::mdb_txn_begin(environment, nullptr, MDB_RDONLY, &transaction), folder, "read");
    const std::unique_ptr<MDB_txn, decltype(&::mdb_txn_abort)> ends(transaction, ::mdb_txn_abort);
    body(transaction);
  }

  std::optional<std::string> find(const std::string& key) const {
    std::optional<std::string> out;
    read([&](MDB_txn* transaction) {
      MDB_val name{key.size(), const_cast<char*>(key.data())}, value{};
      const int code = ::mdb_get(transaction, database, &name, &value);
      if (code == MDB_SUCCESS) {
        out.emplace(static_cast<const char*>(value.mv_data), value.mv_size);
      } else if (code != MDB_NOTFOUND && code != MDB_BAD_VALSIZE) {
        check(code, folder, "read");
      }
    });
    return out;
  }
};

Lmdb::Lmdb(const std::filesystem::path& folder) : impl_(std::make_unique<Impl>()) {
  Impl& impl = *impl_;
  impl.folder = folder.string();
  const auto file = folder / "data.mdb";
  std::error_code error;
  const auto bytes = std::filesystem::file_size(file, error);
  require(!error, "cannot read {}: {}", file.string(), error.message());
  check(::mdb_env_create(&impl.environment), impl.folder, "open");
  check(::mdb_env_set_mapsize(impl.environment, bytes), impl.folder, "open");
  // No thread-local reader slots: a transaction is used and ended by one thread here.
  check(::mdb_env_open(impl.environment, folder.c_str(), MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS, 0444),
        impl.folder, "open");
  // LMDB would read past the end of a truncated file, which kills the program.
  MDB_envinfo info{};
  MDB_stat stat{};
  check(::mdb_env_info(impl.environment, &info), impl.folder, "open");
  check(::mdb_env_stat(impl.environment, &stat), impl.folder, "open");
  const auto needed = (static_cast<uint64_t>(info.me_last_pgno) + 1) * stat.ms_psize;
  require(needed <= bytes, "{}: truncated: {} bytes, expected {}", file.string(), bytes, needed);
  impl.read([&](MDB_txn* transaction) {
    check(::mdb_dbi_open(transaction, nullptr, 0, &impl.database), impl.folder, "open");
  });
}

Lmdb::~Lmdb() = default;
Lmdb::Lmdb(Lmdb&&) noexcept = default;

const std::string& Lmdb::folder() const {
  return impl_->folder;
}

std::string Lmdb::get(const std::string& key) const {
  auto value = impl_->find(key);
  require(value.has_value(), "{}: no key '{}'", impl_->folder, key);
  return std::move(*value);
}

bool Lmdb::contains(const std::string& key) const {
  return impl_->find(key).has_value();
}

std::vector<int64_t> Lmdb::shape(const std::string& name) const {
  const std::string text = get(name + "_shape");
  std::vector<int64_t> out;
  const char *at = text.data(), *end = at + text.size();
  while (at != end) {
    int64_t size = -1;
    const auto [stop, error] = std::from_chars(at, end, size);
    require(error == std::errc() && size >= 0 && (stop == end || *stop == ' '),
            "{}: {}_shape is '{}', expected whole numbers", impl_->folder, name, text);
    out.push_back(size);
    at = stop == end ? stop : stop + 1;
  }
  require(!out.empty(), "{}: {}_shape is empty", impl_->folder, name);
  return out;
}

at::Tensor Lmdb::row(const std::string& name, int64_t row, at::ScalarType dtype) const {
  const std::vector<int64_t> all = shape(name);
  require(row >= 0 && row < all[0], "{}: {} has {} rows, there is no row {}", impl_->folder, name,
          all[0], row);
  const std::string key = fmt::format("{}_{}_data", name, row);
  const std::string bytes = get(key);
  auto expected = static_cast<int64_t>(c10::elementSize(dtype));
  for (size_t i = 1; i < all.size(); ++i) {
    require(!__builtin_mul_overflow(expected, all[i], &expected), "{}: {}_shape is too large",
            impl_->folder, name);
  }
  require(static_cast<uint64_t>(expected) == bytes.size(),
          "{}: '{}' has {} bytes, expected {} for its shape as {}", impl_->folder, key,
          bytes.size(), expected, c10::toString(dtype));
  at::Tensor out = at::empty(at::IntArrayRef(all).slice(1), dtype);
  std::memcpy(out.mutable_data_ptr(), bytes.data(), bytes.size());
  return out;
}

std::string Lmdb::text(const std::string& name, int64_t row) const {
  return get(fmt::format("{}_{}_data", name, row));
}

std::vector<std::filesystem::path> lmdb_folders(const std::filesystem::path& folder) {
  const auto holds_data = [](const std::filesystem::path& path) {
    return std::filesystem::is_regular_file(path / "data.mdb");
  };
  if (holds_data(folder)) {
    return {folder};
  }
  std::vector<std::filesystem::path> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (holds_data(entry.path())) {
      found.push_back(entry.path());
    }
  }
  require(!error, "cannot read {}: {}", folder.string(), error.message());
  require(!found.empty(), "{}: no data.mdb in it or one level below", folder.string());
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace minwm::data
