// In a file of its own, since this header brings every operator and takes long to compile.
#include <ATen/autocast_mode.h>

#include "cpu/stems.h"

namespace fastgan {

Tensor autocast(const Tensor& leaf) {
  return at::autocast::cached_cast(at::autocast::get_autocast_dtype(at::kCPU), leaf, at::kCPU);
}

}  // namespace fastgan
