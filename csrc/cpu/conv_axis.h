// How positions of a convolution's output lie over its input, in one dimension.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace fastgan {

struct Tap {
  int64_t kernel, offset;  // index into the kernel, and distance from where a position begins
};

// Outputs first, first + out_step, ... read their input at the same taps, in ascending order of offset.
struct Phase {
  int64_t first, count;
  std::vector<Tap> taps;
};

// Position m of a phase reads the input at origin + m step + offset. A gather has one phase; a scatter has a phase for
// each residue of the output modulo the stride, so that it never multiplies by the zeros between its inputs.
struct Axis {
  int64_t in, out, step, out_step, origin, extent;
  std::vector<Phase> phases;

  int64_t positions() const { return phases.empty() ? 0 : phases[0].count; }
};

inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

inline Axis make_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
                      bool scatter) {
  Axis axis{in, out, scatter ? 1 : stride, scatter ? stride : 1, 0, 1, {}};
  int64_t least = 0, most = 0;
  bool any = false;
  for (int64_t f = 0; f < std::min(axis.out_step, out); ++f) {
    Phase phase{f, (out - f + axis.out_step - 1) / axis.out_step, {}};
    for (int64_t k = 0; k < kernel; ++k) {
      const int64_t at = scatter ? f + padding - k * dilation : k * dilation - padding;
      const int64_t offset = scatter ? floor_div(at, stride) : at;
      if (scatter && offset * stride != at) continue;
      phase.taps.push_back({k, offset});
      least = any ? std::min(least, offset) : offset;
      most = any ? std::max(most, offset) : offset;
      any = true;
    }
    std::sort(phase.taps.begin(), phase.taps.end(), [](Tap a, Tap b) { return a.offset < b.offset; });
    axis.phases.push_back(phase);
  }
  axis.origin = least;
  axis.extent = most - least + 1;
  for (Phase& phase : axis.phases) {
    for (Tap& tap : phase.taps) tap.offset -= least;
  }
  return axis;
}

// Neighbouring taps of a phase: `step` apart, from `offset` on, with their indices into the kernel.
struct Run {
  int64_t offset;
  std::vector<int64_t> kernel;
};

// The taps of each phase as runs of equal length; empty where they do not fall into such. Without dilation a
// gather of k taps with stride s has s runs of k / s taps.
inline std::vector<std::vector<Run>> runs_of(const Axis& axis) {
  std::vector<std::vector<Run>> result;
  size_t length = 0;
  for (const Phase& phase : axis.phases) {
    std::vector<Run>& runs = result.emplace_back();
    for (const Tap& tap : phase.taps) {
      const auto follows = [&](const Run& run) {
        return tap.offset == run.offset + int64_t(run.kernel.size()) * axis.step;
      };
      const auto run = std::find_if(runs.begin(), runs.end(), follows);
      if (run != runs.end()) {
        run->kernel.push_back(tap.kernel);
      } else {
        runs.push_back({tap.offset, {tap.kernel}});
      }
    }
    for (const Run& run : runs) {
      if (length == 0) length = run.kernel.size();
      if (run.kernel.size() != length) return {};
    }
    if (runs.empty() || runs.size() != result[0].size()) return {};
  }
  return result;
}

}  // namespace fastgan
