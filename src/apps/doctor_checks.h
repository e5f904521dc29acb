#pragma once
// What `minwm doctor` looks at. Every check is collective over `world`, and gives what this rank
// has found as JSON; "problem" in it says what is wrong there and what to do.

#include <string>
#include <vector>

#include <c10/core/Device.h>
#include <nlohmann/json.hpp>

#include "minwm/comm/communicator.h"

namespace minwm::apps {

using Json = nlohmann::ordered_json;

/// Every rank's `mine`, in rank order, on all ranks.
std::vector<Json> gather(comm::Communicator& world, const Json& mine);

/// {rank, host, local_rank, pid, cores, threads, memory_gib, free_gib, versions: {…}}
Json describe_rank(const comm::World& world);

/// All-reduce and all-to-all of random data of several sizes and types against sums and slices
/// made here: {device, wrong_sums: "sizes and types", wrong_from: [ranks whose data came wrong]},
/// the last two where there are any. `device`: where the tensors of `comm` live.
Json check_collectives(comm::Communicator& comm, c10::Device device);

/// {latency_us of an all-reduce of 8 bytes, all_reduce_gbs [3], all_to_all_gbs [3] at 1, 16, 64 MiB
/// of buffer per rank (bytes of the buffer per second)}
Json measure_network(comm::Communicator& world);

/// {skew_low_ms, skew_high_ms}: between them lies what this rank's clock is ahead of rank 0's.
Json measure_clock(comm::Communicator& world);

/// {write_mbs, read_mbs} of a file of 32 MiB with fsync in `folder`, all ranks at once, and whether
/// a file that rank 0 writes there is seen here. Leaves nothing behind, nor what was made of
/// `folder`, and no file if it is killed while it measures.
Json check_disk(comm::Communicator& world, const std::string& folder);

/// {gflops} of matrix products, all ranks at once, the best of several.
Json measure_cpu(comm::Communicator& world);

/// One line per wrong rank, with its host and what to do: from what every rank has found. A rank
/// whose data arrives wrong at several others is named, not those.
std::vector<std::string> find_problems(const std::vector<Json>& ranks);

}  // namespace minwm::apps
