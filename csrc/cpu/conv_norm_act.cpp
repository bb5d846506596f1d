// Gather and scatter on the CPU, see backends/reference/conv_norm_act.py: a matrix product whose rows are read where
// they lie in a few loaded input rows, and whose tile of results gets bias, activation and statistics before it is stored.
#include "cpu/conv_norm_act.h"

#include "cpu/conv_weights.h"
#include "cpu/norm_act.h"

namespace fastgan {
namespace {

// Elements of the loaded input rows and of a tile of results that share the second-level cache.
constexpr int64_t kBand = 65536, kResult = 57344;
// Rows of the product that make reading the weight worth while, and tasks that keep many threads busy.
constexpr int64_t kLeastRows = 60, kMostRows = 264, kTasks = 32;

template <typename T>
class Forward {
 public:
  Forward(const Source<T>& source, const Tensor& weight, const Vector& bias, const Tensor& y, const Sizes& sizes,
          Activation activation, double slope)
      : source_(source), out_(y), h_(axis(0, weight, sizes)), w_(axis(1, weight, sizes)),
        width_((w_.positions() - 1) * w_.step + w_.extent),
        weights_(weight, h_, w_, sizes.transposed, width_, gemm_.columns), channels_(out_.channels),
        columns_(weights_.panels() * gemm_.columns) {
    if (bias.has_value() || activation != Activation::identity) {
      const std::vector<T> zero(channels_, T(0)), one(channels_, T(1));
      finish_ = PixelLoop<T>(Pass::forward, activation, slope, columns_);
      std::vector<T> shift = to_vector<T>(bias, channels_, T(0)), zeros(columns_, T(0)), ones(columns_, T(1));
      shift.resize(columns_, T(0));
      finish_.set(zeros, ones, shift);
    }
    choose_block();
  }

  int64_t tasks() const { return groups_ * bands_; }

  // Writes y; mean and var, if not null, get the statistics of what is stored.
  void run(T* mean, T* var) {
    const int64_t parts = tasks() * int64_t(weights_.phases.size());
    std::vector<Moments> moments(mean == nullptr ? 0 : size_t(parts * channels_));
    at::parallel_for(0, tasks(), 1, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t) task(t, mean == nullptr ? nullptr : moments.data());
    });
    if (mean == nullptr) return;
    for (int64_t c = 0; c < channels_; ++c) {
      Moments all;
      for (int64_t p = 0; p < parts; ++p) {
        const Moments& m = moments[size_t(p * channels_ + c)];
        all.merge(m.count, m.mean, m.squares);
      }
      mean[c] = T(all.mean);
      var[c] = T(all.count > 0 ? std::max(all.squares, 0.0) / all.count : 0.0);
    }
  }

 private:
  Axis axis(int64_t d, const Tensor& weight, const Sizes& s) const {
    const int64_t in = d == 0 ? source_.image.height : source_.image.width, out = d == 0 ? out_.height : out_.width;
    return make_axis(in, out, weight.size(2 + d), s.stride[d], s.padding[d], s.dilation[d], s.transposed);
  }

  // Samples and positions along the height of a task.
  void choose_block() {
    const int64_t positions = h_.positions(), across = w_.positions(), samples = out_.samples;
    const int64_t most = std::clamp(kResult / columns_, kLeastRows, kMostRows);
    auto band = [&](int64_t m) { return ((m - 1) * h_.step + h_.extent) * width_ * source_.image.channels; };
    high_ = std::clamp<int64_t>(most / across, 1, positions);
    while (high_ > 1 && band(high_) > kBand) --high_;
    bands_ = (positions + high_ - 1) / high_;
    high_ = (positions + bands_ - 1) / bands_;
    together_ = 1;
    if (bands_ == 1) {
      together_ = std::clamp<int64_t>(std::min(most / (high_ * across), kBand / band(high_)), 1, samples);
      const int64_t wanted = std::max<int64_t>(1, samples / kTasks);
      const int64_t least = (kLeastRows + high_ * across - 1) / (high_ * across);
      together_ = std::min(together_, std::max(wanted, least));
    }
    groups_ = (samples + together_ - 1) / together_;
  }

  void task(int64_t t, Moments* moments) const {
    const int64_t n0 = t / bands_ * together_, n1 = std::min(n0 + together_, out_.samples);
    const int64_t m0 = t % bands_ * high_, m1 = std::min(m0 + high_, h_.positions());
    const int64_t rows = (m1 - m0 - 1) * h_.step + h_.extent, c = source_.image.channels;
    T* band = scratch<T, 0>((n1 - n0) * rows * width_ * c);
    source_.load(gemm_, n0, n1, m0 * h_.step + h_.origin, rows, 1, w_.origin, width_, band);
    size_t p = 0;
    for (const Phase& ph : h_.phases) {
      for (const Phase& pw : w_.phases) {
        const int64_t high = std::min(m1, ph.count) - m0;
        Moments* into = moments == nullptr ? nullptr : moments + (t * int64_t(weights_.phases.size()) + p) * channels_;
        if (high > 0) phase(weights_.phases[p], ph, pw, {n0, n1, m0, high, rows}, band, into);
        ++p;
      }
    }
  }

  struct Block {
    int64_t n0, n1, m0, high, rows;  // samples, positions along the height, rows loaded of each sample
  };

  void phase(const PhaseWeights& weights, const Phase& ph, const Phase& pw, const Block& b, const T* band,
             Moments* moments) const {
    const int64_t c = source_.image.channels, count = (b.n1 - b.n0) * b.high * pw.count;
    const int64_t padded = (count + kTileRows - 1) / kTileRows * kTileRows;
    const T** begin = scratch<const T*, 1>(padded);
    int64_t i = 0;
    for (int64_t n = 0; n < b.n1 - b.n0; ++n) {
      for (int64_t m = 0; m < b.high; ++m) {
        const T* row = band + (n * b.rows + m * h_.step) * width_ * c;
        for (int64_t w = 0; w < pw.count; ++w) begin[i++] = row + w * w_.step * c;
      }
    }
    for (; i < padded; ++i) begin[i] = begin[count - 1];
    T* result = scratch<T, 2>(padded * columns_);
    if (weights.depth == 0) std::fill_n(result, padded * columns_, T(0));
    bool first = true;
    for (const Stretch& s : weights.stretches) {
      for (int64_t j = 0; j < weights_.panels(); ++j) {
        const T* panel = weights_.panel(weights, j) + s.begin * gemm_.columns;
        for (int64_t r = 0; r < padded; r += kTileRows) {
          gemm_.rows(s.length, begin + r, s.offset, panel, result + r * columns_ + j * gemm_.columns, columns_, first);
        }
      }
      first = false;
    }
    if (finish_) finish_(count * columns_, result, nullptr, result);
    store(ph, pw, b, result);
    if (moments != nullptr) statistics(result, count, moments);
  }

  void store(const Phase& ph, const Phase& pw, const Block& b, const T* result) const {
    const Pixels pixels = out_.pixels(pw.count, w_.out_step);
    for (int64_t n = b.n0; n < b.n1; ++n) {
      for (int64_t m = b.m0; m < b.m0 + b.high; ++m, result += pw.count * columns_) {
        char* to = out_.at(n, ph.first + m * h_.out_step, pw.first);
        gemm_.store(out_.storage, result, columns_, to, pixels);
      }
    }
  }

  // Two passes over a tile that is in the cache.
  void statistics(T* result, int64_t count, Moments* moments) const {
    gemm_.round(out_.storage, result, count * columns_);
    T *sum = scratch<T, 4>(3 * columns_), *mean = sum + columns_, *squares = mean + columns_;
    std::fill_n(sum, 3 * columns_, T(0));
    Span<T> s{};
    s.rows = count, s.width = s.stride = columns_;
    s.x = result, s.mean = sum, s.acc[0] = mean;
    loop<T>({Pass::sum, Activation::identity, Storage::exact, true, false})(s);
    for (int64_t c = 0; c < columns_; ++c) mean[c] /= T(count);
    s.mean = mean, s.acc[0] = squares;
    loop<T>({Pass::squares, Activation::identity, Storage::exact, true, false})(s);
    for (int64_t c = 0; c < channels_; ++c) moments[c] = {double(count), double(mean[c]), double(squares[c])};
  }

  const Gemm<T> gemm_ = gemm<T>();
  const Source<T>& source_;
  Image out_;
  Axis h_, w_;
  int64_t width_;
  PackedWeights<T> weights_;
  int64_t channels_, columns_;
  PixelLoop<T> finish_;
  int64_t high_ = 1, together_ = 1, bands_ = 1, groups_ = 1;
};

}  // namespace

void conv_norm_act_fwd_cpu(const Tensor& x, const Norm& norm, const Mask& mask, const Tensor& weight,
                           const Vector& bias, Tensor y, Tensor mean_y, Tensor var_y, const ConvSizes& sizes,
                           int64_t activation, double negative_slope) {
  with_accumulation_type(x, [&](auto zero) {
    using T = decltype(zero);
    const Source<T> source = make_source<T>(x, norm, mask);
    Forward<T> forward(source, weight, bias, y, Sizes(sizes), Activation(activation), negative_slope);
    const bool stats = mean_y.numel() > 0;
    forward.run(stats ? mean_y.mutable_data_ptr<T>() : nullptr, stats ? var_y.mutable_data_ptr<T>() : nullptr);
  });
}

}  // namespace fastgan
