// Tasks of unequal length, or on cores of unequal speed.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

namespace fastgan {

// Calls body(task) for each of `count` independent tasks; a thread that is done takes the next one.
template <typename Body>
void each_task(int64_t count, Body body) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(count, at::get_num_threads());
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t task = next++; task < count; task = next++) body(task);
  });
}

}  // namespace fastgan
