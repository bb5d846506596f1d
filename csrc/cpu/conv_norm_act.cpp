// Gather and scatter on the CPU, see backends/reference/conv_norm_act.py: a matrix product whose rows are read where
// they lie in a few loaded input rows, and whose tile of results gets bias, activation and statistics before it is
// stored.
#include "cpu/conv_norm_act.h"

#include "cpu/conv_overlap.h"
#include "cpu/conv_points.h"
#include "cpu/conv_weights.h"
#include "cpu/norm_act.h"
#include "cpu/tasks.h"

namespace fastgan {
namespace {

// Elements of the loaded input rows, and of what a stretch reads of them and its tile of results: these have to stay in
// the second-level cache while the weight streams through it.
constexpr int64_t kBand = 262144, kCache = 40960;
// Columns up to which a scatter to few channels adds up overlapping products.
constexpr int64_t kFewColumns = 128;
// Rows of the product that make reading the weight worth while, and tasks that keep many threads busy.
constexpr int64_t kLeastRows = 60, kMostRows = 264, kTasks = 32;
// Values that are summed up in float32 for statistics.
constexpr int64_t kSummed = 264;
// Steps of tiles of operands that are summed up at a time, and rows of the product, at most and at least: the weight
// stays in the second-level cache.
constexpr int64_t kSteps = 32, kRowsOfTiles = 256, kLeastRowsOfTiles = 128;
// Operands of a weight that stays there whole; operands that are gathered at a time, and their results.
constexpr int64_t kWeight = int64_t(1) << 18, kGathered = int64_t(1) << 14, kResults = int64_t(1) << 13;
// Tiles of minimal filtering that are multiplied together: all points of them have to stay in the second-level cache.
constexpr int64_t kTilesTogether = 48;

template <typename T, typename E>
class Forward {
 public:
  Forward(const Source<T>& source, const Tensor& weight, const Vector& bias, T scale, const Tensor& y,
          const Sizes& sizes, Activation activation, double slope)
      : source_(source),
        out_(y),
        h_(axis(0, weight, sizes)),
        w_(axis(1, weight, sizes)),
        overlaps_(sizes.transposed && overlaps(source.image, weight)),
        filter_(overlaps_ || tiles_ != nullptr
                    ? MinimalFilter<T, E>()
                    : minimal_filter(tile_, h_, w_, std::min(weight.size(0), weight.size(1)), out_.samples)),
        width_(overlaps_ ? source.image.width : loaded(w_, w_.positions())),
        weights_(overlaps_ ? PackedWeights<T, E>(weight, scale, tile_)
                 : filter_ ? PackedWeights<T, E>()
                           : PackedWeights<T, E>(weight, scale, h_, w_, sizes.transposed, width_, tile_)),
        product_(filter_ ? PointProduct<T, E>(tile_, filter_, h_, w_, weight, scale, sizes.transposed)
                         : PointProduct<T, E>()),
        overlap_(source.image, out_, weight, sizes),
        channels_(out_.channels),
        columns_(overlaps_ ? channels_ : (channels_ + tile_.columns - 1) / tile_.columns * tile_.columns),
        product_columns_(filter_ ? columns_ : weights_.panels() * tile_.columns) {
    if (bias.has_value() || activation != Activation::identity) {
      finish_ = PixelLoop<T>(Pass::forward, activation, slope, columns_);
      std::vector<T> shift = to_vector<T>(bias, channels_, T(0)), zeros(columns_, T(0)), ones(columns_, T(1));
      shift.resize(columns_, T(0));
      finish_.set(zeros, ones, shift);
    }
    choose_block();
  }

  int64_t tasks() const { return groups_ * bands_; }

  int64_t phases() const { return int64_t(h_.phases.size() * w_.phases.size()); }

  // Writes y; mean and var, if not null, get the statistics of what is stored.
  void run(T* mean, T* var) {
    const int64_t parts = tasks() * phases();
    std::vector<Moments> moments(mean == nullptr ? 0 : size_t(parts * channels_));
    each_task(tasks(), [&](int64_t t) { task(t, mean == nullptr ? nullptr : moments.data()); });
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
  // Whether a scatter multiplies all inputs by all taps first and adds up what overlaps then: where a tile of few big
  // channels would be mostly empty, or where most positions would read nothing but zeros.
  static bool overlaps(const Image& in, const Tensor& weight) {
    const int64_t big = weight.size(1), columns = weight[0].numel();
    return in.height * in.width == 1 || (big <= kFewChannels && columns <= kFewColumns);
  }

  Axis axis(size_t d, const Tensor& weight, const Sizes& s) const {
    const int64_t in = d == 0 ? source_.image.height : source_.image.width, out = d == 0 ? out_.height : out_.width;
    return axis_of(s, d, in, out, weight.size(2 + int64_t(d)), s.transposed);
  }

  // Positions that are computed together in each dimension, and input pixels for them.
  int64_t side() const { return filter_ ? 2 : 1; }
  int64_t loaded(const Axis& axis, int64_t positions) const {
    return ((positions + side() - 1) / side() * side() - 1) * axis.step + axis.extent;
  }

  // Samples and positions along the height of a task.
  void choose_block() {
    const int64_t positions = (h_.positions() + side() - 1) / side(), samples = out_.samples;
    const int64_t across = (w_.positions() + side() - 1) / side();
    const int64_t row = product_columns_ + std::min(source_.image.channels * w_.step, kDepth);
    const int64_t most = filter_             ? kTilesTogether
                         : tiles_ != nullptr ? kRowsOfTiles
                                             : std::clamp(kCache / row, overlaps_ ? kLeastRows / 3 : kLeastRows,
                                                          overlaps_ ? 2 * kMostRows : kMostRows);
    if (overlaps_ && source_.image.height * source_.image.width == 1) {
      // a sample is one row of the product
      high_ = positions;
      together_ = std::clamp<int64_t>(std::min(most, (samples + 3) / 4), 1, samples);
      groups_ = (samples + together_ - 1) / together_;
      return;
    }
    auto band = [&](int64_t m) { return loaded(h_, m * side()) * width_ * source_.image.channels; };
    high_ = std::clamp<int64_t>(most / across, 1, positions);
    while (high_ > 1 && band(high_) > kBand) --high_;
    bands_ = (positions + high_ - 1) / high_;
    high_ = (positions + bands_ - 1) / bands_;
    together_ = 1;
    if (bands_ == 1) {
      together_ = std::clamp<int64_t>(std::min(most / (high_ * across), kBand / band(high_)), 1, samples);
      const int64_t wanted = std::max<int64_t>(1, samples / kTasks);
      const int64_t rows = filter_ ? kTilesTogether / 2 : tiles_ != nullptr ? kLeastRowsOfTiles : kLeastRows;
      const int64_t least = (rows + high_ * across - 1) / (high_ * across);
      if (!overlaps_) together_ = std::min(together_, std::max(wanted, least));
      if (filter_) together_ = even(samples, together_);
    }
    groups_ = (samples + together_ - 1) / together_;
    high_ *= side();
  }

  // At most so many samples together, in an even number of groups of nearly the same size where they divide so: few and
  // long tasks are to end at the same time.
  static int64_t even(int64_t samples, int64_t together) {
    int64_t groups = (samples + together - 1) / together;
    if (groups > 1) groups += groups % 2;
    return (samples + groups - 1) / groups;
  }

  void task(int64_t t, Moments* moments) const {
    const int64_t n0 = t / bands_ * together_, n1 = std::min(n0 + together_, out_.samples);
    const int64_t m0 = t % bands_ * high_, m1 = std::min(m0 + high_, h_.positions());
    const int64_t rows = loaded(h_, m1 - m0);
    Block b{n0, n1, m0, 0, m0 * h_.step + h_.origin, rows, nullptr, nullptr};
    if (overlaps_) {
      // no zeros around: what lies outside adds nothing
      b.rows = std::max<int64_t>(0, std::min(b.top + rows, source_.image.height) - std::max<int64_t>(b.top, 0));
      b.top = std::max<int64_t>(b.top, 0);
    }
    load(b, overlaps_ ? 0 : w_.origin);
    if (overlaps_) return add_up(b, m1, moments == nullptr ? nullptr : moments + t * phases() * channels_);
    size_t p = 0;
    for (const Phase& ph : h_.phases) {
      for (const Phase& pw : w_.phases) {
        b.high = std::min(m1, ph.count) - m0;
        Moments* into = moments == nullptr ? nullptr : moments + (t * phases() + p) * channels_;
        if (b.high > 0) phase(p, ph, pw, b, into);
        ++p;
      }
    }
  }

  struct Block {
    int64_t n0, n1, m0, high;  // samples, positions along the height
    int64_t top, rows;         // rows loaded of each sample
    const T* band;             // what is loaded for minimal filtering
    const Term<E>* terms;      // what is loaded for other products
  };

  void load(Block& b, int64_t left) const {
    const int64_t values = (b.n1 - b.n0) * b.rows * width_ * source_.image.channels;
    if constexpr (std::is_same_v<E, Pair>) {
      if (!filter_) {
        Term<E>* to = scratch<Term<E>, 14>(values);
        source_.load_terms(gemm_, b.n0, b.n1, b.top, b.rows, 1, left, width_, to);
        b.terms = to;
        return;
      }
    }
    T* to = scratch<T, 0>(values);
    source_.load(gemm_, b.n0, b.n1, b.top, b.rows, 1, left, width_, to);
    b.band = to;
    if constexpr (std::is_same_v<T, E>) b.terms = to;
  }

  void phase(size_t p, const Phase& ph, const Phase& pw, const Block& b, Moments* moments) const {
    const int64_t count = (b.n1 - b.n0) * b.high * pw.count;
    const Places h{ph.first + b.m0 * h_.out_step, h_.out_step, b.high}, w{pw.first, w_.out_step, pw.count};
    if (filter_) return put(b, h, w, convolve_tiles(p, pw, b, count), moments);
    const Term<E>** begin = begins(pw, b, whole_rows(count));
    T* result = scratch<T, 2>(whole_rows(count) * columns_);
    if constexpr (std::is_same_v<E, Pair>) {
      // where channels are outermost, results are written in long streams
      if (tiles_ != nullptr && out_.strides[1] == 1) {
        auto write_rows = [&](int64_t first, int64_t last, T* rows) {
          write(b, h, w, rows, first, std::min(last, count));
        };
        multiply_tiles(weights_.phases[p], begin, whole_rows(count), pw.count, moments != nullptr, result, write_rows);
        if (moments != nullptr) statistics(result, count, moments);
        return;
      }
    }
    multiply(weights_.phases[p], begin, whole_rows(count), pw.count, result);
    put(b, h, w, result, moments);
  }

  // Places in one dimension of y.
  struct Places {
    int64_t first, step, count;
  };

  // Bias, activation and statistics of a tile of results, and where it belongs.
  void put(const Block& b, const Places& h, const Places& w, T* result, Moments* moments) const {
    const int64_t count = (b.n1 - b.n0) * h.count * w.count;
    write(b, h, w, result, 0, count);
    if (moments != nullptr) statistics(result, count, moments);
  }

  // Bias and activation of rows [first, last) of a tile of results, and where they belong.
  void write(const Block& b, const Places& h, const Places& w, T* rows, int64_t first, int64_t last) const {
    if (finish_) finish_((last - first) * columns_, rows, nullptr, rows);
    store(b, h, w, rows, first, last);
  }

  // Rows that are computed for so many.
  int64_t whole_rows(int64_t rows) const { return tiles_ == nullptr ? whole_pairs(rows) : tiles_for(rows) * kTile; }

  // `rows` are whole; `even`: so many neighbouring ones are equally far from one another.
  void multiply(const PhaseWeights& weights, const Term<E>** begin, int64_t rows, int64_t even, T* result) const {
    if constexpr (std::is_same_v<E, Pair>) {
      if (tiles_ != nullptr) return multiply_tiles(weights, begin, rows, even, true, result, [](auto...) {});
    }
    if (weights.depth == 0) std::fill_n(result, rows * product_columns_, T(0));
    bool first = true;
    weights.each_sum([&](const Stretch* s, int64_t count) {
      for (int64_t j = 0; j < weights_.panels(); ++j) {
        const E* panel = weights_.panel(weights, j) + s->begin * tile_.columns;
        tile_.multiply(s, count, begin, rows, panel, result + j * tile_.columns, product_columns_, first);
      }
      first = false;
    });
  }

  // The same in tiles, a chunk of rows at a time; done(first, last, their result) is called when they are complete.
  // Unless they are `kept`, the next may be where these were.
  template <typename Done>
  void multiply_tiles(const PhaseWeights& weights, const Term<E>** begin, int64_t rows, int64_t even, bool kept,
                      T* result, Done done) const {
    TORCH_INTERNAL_ASSERT(tile_.columns == kPanel);
    const int64_t depth = weights.depth / kTermsOf<E>, all = depth / kTile, panels = weights_.panels();
    const int64_t most = depth * panels * kPanel <= kWeight ? all : kSteps, count = int64_t(weights.stretches.size());
    const bool lie = even % kTile == 0 && source_.image.channels % kWholeSum<E> == 0;
    // results stay in the first-level cache at best, what is gathered near it
    const int64_t gathered = lie ? kRowsOfTiles : kGathered / std::max<int64_t>(1, most * kTile);
    const int64_t chunk =
        std::max<int64_t>(std::min(gathered, kResults / product_columns_) / (2 * kTile), 1) * 2 * kTile;
    E* a = lie ? nullptr : scratch<E, 15>(chunk * most * kTile);
    int64_t s = 0;
    do {
      const int64_t steps = std::min(most, all - s), from = s * kTile;
      const E* panel = weights_.panel(weights, 0) + from * kPanel;
      for (int64_t r = 0; r < rows; r += chunk) {
        const int64_t some = std::min(chunk, rows - r);
        T* to = result + (kept || all > most ? r : 0) * product_columns_;
        if (lie) {
          tiles_->multiply_rows(weights.stretches.data(), count, begin + r, some, begin[1] - begin[0], from, steps,
                                panel, depth * kPanel, panels, to, product_columns_, s == 0);
        } else {
          tiles_->gather(weights.stretches.data(), count, begin + r, some, from, steps, a);
          tiles_->multiply(some / kTile, steps, a, panel, kPanel, depth * kPanel, panels, to, product_columns_, s == 0);
        }
        if (s + steps == all) done(r, r + some, to);
      }
      s += steps;
    } while (s < all);
  }

  // The loaded pixels times all taps.
  T* multiply_all(int64_t pixels, const Term<E>* terms) const {
    const Term<E>** begin = scratch<const Term<E>*, 1>(whole_rows(pixels));
    for (int64_t i = 0; i < whole_rows(pixels); ++i)
      begin[i] = terms + std::min(i, pixels - 1) * source_.image.channels;
    T* result = scratch<T, 6>(whole_rows(pixels) * product_columns_);
    multiply(weights_.phases[0], begin, whole_rows(pixels), pixels, result);
    return result;
  }

  // Whole rows of the result of positions up to m1.
  void add_up(const Block& b, int64_t m1, Moments* moments) const {
    const T* products = multiply_all((b.n1 - b.n0) * b.rows * width_, b.terms);
    const Places h{b.m0 * h_.out_step, 1, std::min(m1 * h_.out_step, out_.height) - b.m0 * h_.out_step};
    T* result = scratch<T, 2>((b.n1 - b.n0) * h.count * out_.width * channels_);
    for (int64_t n = 0; n < b.n1 - b.n0; ++n, products += b.rows * width_ * product_columns_) {
      for (int64_t i = 0; i < h.count; ++i) {
        T* to = result + (n * h.count + i) * out_.width * channels_;
        overlap_.row(h.first + i, products, product_columns_, b.top, b.rows, to);
      }
    }
    put(b, h, {0, 1, out_.width}, result, moments);
  }

  // Where each row of the product begins; what is missing of `rows` is like the last.
  const Term<E>** begins(const Phase& pw, const Block& b, int64_t rows) const {
    const int64_t c = source_.image.channels;
    const Term<E>** begin = scratch<const Term<E>*, 1>(rows);
    int64_t i = 0;
    for (int64_t n = 0; n < b.n1 - b.n0; ++n) {
      for (int64_t m = 0; m < b.high; ++m) {
        const Term<E>* row = b.terms + (n * b.rows + m * h_.step) * width_ * c;
        for (int64_t w = 0; w < pw.count; ++w) begin[i++] = row + w * w_.step * c;
      }
    }
    std::fill(begin + i, begin + rows, begin[i - 1]);
    return begin;
  }

  T* convolve_tiles(size_t p, const Phase& pw, const Block& b, int64_t count) const {
    T* result = scratch<T, 2>(count * columns_);
    product_(int64_t(p), {b.band, b.n1 - b.n0, b.rows, width_, b.high, pw.count}, result);
    return result;
  }

  void store(const Block& b, const Places& h, const Places& w, const T* rows, int64_t first, int64_t last) const {
    // where channels are outermost, 16 streams at a time
    const int64_t block = out_.strides[1] == 1 ? channels_ : 16;
    for (int64_t c = 0; c < channels_; c += block) {
      for (int64_t r = first, n; r < last; r += n) {
        const int64_t line = r / w.count, x = r % w.count;
        n = std::min(last - r, w.count - x);
        Pixels pixels = out_.pixels(n, w.step);
        pixels.channels = std::min(block, channels_ - c);
        char* to = out_.at(b.n0 + line / h.count, h.first + line % h.count * h.step, w.first + x * w.step);
        gemm_.store(out_.storage, rows + (r - first) * columns_ + c, columns_, to + c * out_.strides[1] * out_.item,
                    pixels);
      }
    }
  }

  // Two passes over pixels that are in the cache, as few at a time as keep sums exact.
  void statistics(T* result, int64_t count, Moments* moments) const {
    gemm_.round(out_.storage, result, count * columns_);
    T *sum = scratch<T, 4>(3 * columns_), *mean = sum + columns_, *squares = mean + columns_;
    for (int64_t done = 0; done < count; done += kSummed) {
      std::fill_n(sum, 3 * columns_, T(0));
      Span<T> s{};
      s.rows = std::min(kSummed, count - done), s.width = s.stride = columns_;
      s.x = result + done * columns_, s.mean = sum, s.acc[0] = mean;
      loop<T>({Pass::sum, Activation::identity, Storage::exact, true, false})(s);
      for (int64_t c = 0; c < columns_; ++c) mean[c] /= T(s.rows);
      s.mean = mean, s.acc[0] = squares;
      loop<T>({Pass::squares, Activation::identity, Storage::exact, true, false})(s);
      for (int64_t c = 0; c < channels_; ++c) moments[c].merge(double(s.rows), double(mean[c]), double(squares[c]));
    }
  }

  const Gemm<T> gemm_ = gemm<T>();
  const Products<T, E> tile_ = products<T, E>();
  const Tiles* tiles_ = std::is_same_v<E, Pair> ? tiles() : nullptr;
  const Source<T>& source_;
  Image out_;
  Axis h_, w_;
  bool overlaps_;
  MinimalFilter<T, E> filter_;
  int64_t width_;
  PackedWeights<T, E> weights_;
  PointProduct<T, E> product_;
  Overlap<T> overlap_;
  // of a tile of results and of the product
  int64_t channels_, columns_, product_columns_;
  PixelLoop<T> finish_;
  int64_t high_ = 1, together_ = 1, bands_ = 1, groups_ = 1;
};

}  // namespace

void conv_norm_act_load_cpu(const Tensor& x, const Norm& norm, const Mask& mask, Tensor to) {
  with_accumulation_type(x, [&](auto zero) {
    using T = decltype(zero);
    const Source<T> source = make_source<T>(x, norm, mask);
    const Gemm<T> loops = gemm<T>();
    const int64_t height = x.size(2), row = x.size(1) * x.size(3);
    const int64_t high = std::clamp<int64_t>(kCache / row, 1, height), bands = (height + high - 1) / high;
    T* out = reinterpret_cast<T*>(mutable_data(to));
    at::parallel_for(0, x.size(0) * bands, 1, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t) {
        const int64_t n = t / bands, h = t % bands * high, rows = std::min(high, height - h);
        source.load(loops, n, n + 1, h, rows, 1, 0, x.size(3), out + (n * height + h) * row);
      }
    });
  });
}

bool conv_norm_act_in_pairs_cpu(std::array<int64_t, 4> x, std::array<int64_t, 4> weight, std::array<int64_t, 2> out,
                                const ConvSizes& sizes) {
  const Sizes s(sizes);
  const int64_t channels = std::min(weight[0], weight[1]);
  // also those of the gradients
  const bool gather = sums_of_pairs(weight[1], weight[3], s, false);
  if (!gather || !sums_of_pairs(weight[0], weight[3], s, true) || !multiplies<Pair>()) return false;
  if (channels <= kFewChannels || tiles() != nullptr) return true;
  auto axis = [&](size_t d) { return axis_of(s, d, x[2 + d], out[d], weight[2 + d], s.transposed); };
  return bool(minimal_filter(products<float, Pair>(), axis(0), axis(1), channels, x[0]));
}

void conv_norm_act_fwd_cpu(const Tensor& x, const Norm& norm, const Mask& mask, const Tensor& weight,
                           const Vector& bias, const Vector& scale, Tensor y, Tensor mean_y, Tensor var_y,
                           const ConvSizes& sizes, int64_t activation, double negative_slope) {
  const Sizes s(sizes);
  with_operands(x, sums_of_pairs(x.size(1), weight.size(3), s, s.transposed), [&](auto zero, auto operand) {
    using T = decltype(zero);
    const Source<T> source = make_source<T>(x, norm, mask);
    in_large_pages(y.mutable_data_ptr(), y.nbytes());
    Forward<T, decltype(operand)> forward(source, weight, bias, to_vector<T>(scale, 1, T(1))[0], y, s,
                                          Activation(activation), negative_slope);
    const bool stats = mean_y.numel() > 0;
    forward.run(stats ? mean_y.mutable_data_ptr<T>() : nullptr, stats ? var_y.mutable_data_ptr<T>() : nullptr);
  });
}

}  // namespace fastgan
