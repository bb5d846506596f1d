// Gather and scatter on the CPU, see backends/reference/conv_norm_act.py: a matrix product whose rows are read where
// they lie in a few loaded input rows, and whose tile of results gets bias, activation and statistics before it is
// stored.
#include "cpu/conv_norm_act.h"

#include "cpu/conv_overlap.h"
#include "cpu/conv_points.h"
#include "cpu/conv_product.h"
#include "cpu/conv_results.h"
#include "cpu/conv_shuffle.h"
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
// Tiles of minimal filtering that are multiplied together: all points of them have to stay in the second-level cache.
constexpr int64_t kTilesTogether = 48;

template <typename T, typename E>
class Forward {
 public:
  Forward(const Source<T>& source, const Tensor& weight, const Vector& bias, T scale, const Image& y,
          const Shuffle& shuffle, const Sizes& sizes, Activation activation, double slope)
      : source_(source),
        out_(shuffle.before(y)),
        h_(axis(0, weight, sizes)),
        w_(axis(1, weight, sizes)),
        overlaps_(sizes.transposed && overlaps(source.image, weight)),
        filter_(overlaps_ || tiles_ != nullptr
                    ? MinimalFilter<T, E>()
                    : minimal_filter(tile_, h_, w_, std::min(weight.size(0), weight.size(1)), out_.samples)),
        width_(overlaps_ ? source.image.width : loaded(w_, w_.positions())),
        product_(tile_,
                 overlaps_ ? PackedWeights<T, E>(weight, scale, tile_)
                 : filter_ ? PackedWeights<T, E>()
                           : PackedWeights<T, E>(weight, scale, h_, w_, sizes.transposed, width_, tile_),
                 source.image.channels),
        point_product_(filter_ ? PointProduct<T, E>(tile_, filter_, h_, w_, weight, scale, sizes.transposed)
                               : PointProduct<T, E>()),
        overlap_(source.image, out_, weight, sizes),
        results_(y, shuffle, columns(), bias, activation, slope) {
    choose_block();
  }

  int64_t tasks() const { return groups_ * bands_; }

  int64_t phases() const { return int64_t(h_.phases.size() * w_.phases.size()); }

  // Writes y; mean and var, if not null, get the statistics of what is stored.
  void run(T* mean, T* var) {
    const int64_t parts = tasks() * phases();
    std::vector<Moments> moments(mean == nullptr ? 0 : size_t(parts * out_.channels));
    each_task(tasks(), [&](int64_t t) { task(t, mean == nullptr ? nullptr : moments.data()); });
    if (mean == nullptr) return;
    for (int64_t c = 0; c < results_.channels(); ++c) {
      Moments all;
      for (int64_t p = 0; p < parts; ++p) {
        const Moments& m = moments[size_t(p * out_.channels + c)];
        all.merge(m.count, m.mean, m.squares);
      }
      mean[c] = T(all.mean);
      var[c] = T(all.count > 0 ? std::max(all.squares, 0.0) / all.count : 0.0);
    }
  }

 private:
  // Columns of what becomes results: those of whole tiles of the product, but for what adds up.
  int64_t columns() const {
    if (overlaps_) return out_.channels;
    return filter_ ? (out_.channels + tile_.columns - 1) / tile_.columns * tile_.columns : product_.columns();
  }

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
    const int64_t of_product = filter_ ? results_.columns() : product_.columns();
    const int64_t row = of_product + std::min(source_.image.channels * w_.step, kDepth);
    const int64_t most = filter_             ? kTilesTogether
                         : tiles_ != nullptr ? rows_of_tiles(of_product, samples * positions * across)
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

  // Rows of a task, of all: with few columns many, so that few of the image's rows are loaded twice.
  static int64_t rows_of_tiles(int64_t columns, int64_t all) {
    return columns <= kTile && all >= kTasks * kRowsOfOneTile ? kRowsOfOneTile : kRowsOfTiles;
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
    if (overlaps_) return add_up(b, m1, moments == nullptr ? nullptr : moments + t * phases() * out_.channels);
    size_t p = 0;
    for (const Phase& ph : h_.phases) {
      for (const Phase& pw : w_.phases) {
        b.high = std::min(m1, ph.count) - m0;
        Moments* into = moments == nullptr ? nullptr : moments + (t * phases() + p) * out_.channels;
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
    const Region to{b.n0, {ph.first + b.m0 * h_.out_step, h_.out_step, b.high}, {pw.first, w_.out_step, pw.count}};
    const int64_t whole = product_.whole_rows(count);
    T* place = filter_ || whole > count ? nullptr : results_.place(to, count);
    T* result = place != nullptr ? place : scratch<T, 2>(whole * results_.columns());
    auto write = [&](int64_t first, int64_t last, T* rows) {
      last = std::min(last, count);
      if (place != nullptr) return results_.finish(rows, last - first);
      results_.write(to, rows, first, last);
    };
    if (filter_) {
      point_product_(int64_t(p), {b.band, b.n1 - b.n0, b.rows, width_, b.high, pw.count}, result);
      write(0, count, result);
    } else if (out_.strides[1] == 1) {
      product_.each_chunk(p, rows(pw, b, count), moments != nullptr, result, write);
    } else {
      // channels that are outermost are written in long streams
      product_.multiply(p, rows(pw, b, count), result);
      write(0, count, result);
    }
    if (moments != nullptr) results_.statistics(result, count, moments);
  }

  // The loaded pixels times all taps.
  T* multiply_all(int64_t pixels, const Term<E>* terms) const {
    const int64_t whole = product_.whole_rows(pixels);
    const Term<E>** begin = scratch<const Term<E>*, 1>(whole);
    for (int64_t i = 0; i < whole; ++i) begin[i] = terms + std::min(i, pixels - 1) * source_.image.channels;
    T* result = scratch<T, 6>(whole * product_.columns());
    product_.multiply(0, {begin, whole, pixels}, result);
    return result;
  }

  // Whole rows of the result of positions up to m1.
  void add_up(const Block& b, int64_t m1, Moments* moments) const {
    const T* products = multiply_all((b.n1 - b.n0) * b.rows * width_, b.terms);
    const Places h{b.m0 * h_.out_step, 1, std::min(m1 * h_.out_step, out_.height) - b.m0 * h_.out_step};
    const int64_t count = (b.n1 - b.n0) * h.count * out_.width;
    T* result = scratch<T, 2>(count * out_.channels);
    for (int64_t n = 0; n < b.n1 - b.n0; ++n, products += b.rows * width_ * product_.columns()) {
      for (int64_t i = 0; i < h.count; ++i) {
        T* to = result + (n * h.count + i) * out_.width * out_.channels;
        overlap_.row(h.first + i, products, product_.columns(), b.top, b.rows, to);
      }
    }
    results_.write({b.n0, h, {0, 1, out_.width}}, result, 0, count);
    if (moments != nullptr) results_.statistics(result, count, moments);
  }

  // The rows of the product; what `whole_rows` adds is like the last.
  Rows<E> rows(const Phase& pw, const Block& b, int64_t count) const {
    const int64_t c = source_.image.channels, whole = product_.whole_rows(count);
    const Term<E>** begin = scratch<const Term<E>*, 1>(whole);
    int64_t i = 0;
    for (int64_t n = 0; n < b.n1 - b.n0; ++n) {
      for (int64_t m = 0; m < b.high; ++m) {
        const Term<E>* row = b.terms + (n * b.rows + m * h_.step) * width_ * c;
        for (int64_t w = 0; w < pw.count; ++w) begin[i++] = row + w * w_.step * c;
      }
    }
    std::fill(begin + i, begin + whole, begin[i - 1]);
    return {begin, whole, pw.count};
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
  DirectProduct<T, E> product_;
  PointProduct<T, E> point_product_;
  Overlap<T> overlap_;
  Results<T> results_;
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
    share_tasks(x.size(0) * bands, kThread, [&](int64_t t) {
      const int64_t n = t / bands, h = t % bands * high, rows = std::min(high, height - h);
      source.load(loops, n, n + 1, h, rows, 1, 0, x.size(3), out + (n * height + h) * row);
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
    using E = decltype(operand);
    const Source<T> source = make_source<T>(x, norm, mask);
    in_large_pages(y.mutable_data_ptr(), y.nbytes());
    auto run = [&](const Tensor& w, const Sizes& of_w, const Shuffle& shuffle) {
      Forward<T, E> forward(source, w, bias, to_vector<T>(scale, 1, T(1))[0], Image(y), shuffle, of_w,
                            Activation(activation), negative_slope);
      const bool stats = mean_y.numel() > 0;
      forward.run(stats ? mean_y.mutable_data_ptr<T>() : nullptr, stats ? var_y.mutable_data_ptr<T>() : nullptr);
    };
    if constexpr (std::is_same_v<E, Pair>) {
      if (const auto shuffle = shuffle_of(x, y, s)) {
        const auto [w, of_w] = shuffled(weight, x, y, s);
        return run(w, of_w, *shuffle);
      }
    }
    run(weight, s, {});
  });
}

}  // namespace fastgan
