// Zero insertion, padding or cropping, FIR filter, decimation: one element, in the general form.
//
// y[r, c] = gain * sum over i, j of tap(i, j) * u[r * down_y + i - pad_y, c * down_x + j - pad_x],
// where u is x with up - 1 zeros after every sample and zero elsewhere. Only taps at samples are
// visited. The gradient is the same operator: up and down exchanged, filter turned.
#pragma once

#include "portable.h"

namespace clcae {

// Arguments of a call, as plain data. The result is dense, x may have any strides.
struct Upfirdn2dCall {
  const void* x;       // [samples, channels, in_height, in_width]
  const void* filter;  // float (double for float64): [taps] both ways, or [taps_y, taps_x]
  void* y;             // [samples, channels, out_height, out_width]
  int64_t samples, channels, in_height, in_width, out_height, out_width;
  int64_t stride_sample, stride_channel, stride_y, stride_x;  // of x
  int64_t taps_y, taps_x;
  int64_t up_y, up_x, down_y, down_x;
  int64_t pad_y, pad_x;  // before the first row and column
  double gain;
  int32_t separable;
  int32_t flip;           // 0: a convolution, the taps in reverse order; 1: a correlation
  int32_t channels_last;  // the layout of y
  int32_t element;
};

template <class T>
struct Upfirdn2d {
  const T* x;
  const Wide<T>* filter;
  T* y;
  Upfirdn2dCall call;
  Wide<T> gain;

  explicit Upfirdn2d(const Upfirdn2dCall& given)
      : x(static_cast<const T*>(given.x)),
        filter(static_cast<const Wide<T>*>(given.filter)),
        y(static_cast<T*>(given.y)),
        call(given),
        gain(static_cast<Wide<T>>(given.gain)) {}

  // Tap at row i and column j from the corner.
  CLCAE_BOTH Wide<T> tap(int64_t i, int64_t j) const {
    const int64_t row = call.flip ? i : call.taps_y - 1 - i;
    const int64_t column = call.flip ? j : call.taps_x - 1 - j;
    return call.separable ? filter[row] * filter[column] : filter[row * call.taps_x + column];
  }

  CLCAE_BOTH const T* plane(int64_t sample, int64_t channel) const {
    return x + sample * call.stride_sample + channel * call.stride_channel;
  }

  // Offset of an element of the result.
  CLCAE_BOTH int64_t place(int64_t sample, int64_t channel, int64_t row, int64_t column) const {
    if (call.channels_last) {
      return ((sample * call.out_height + row) * call.out_width + column) * call.channels + channel;
    }
    return ((sample * call.channels + channel) * call.out_height + row) * call.out_width + column;
  }
};

// First tap along an axis that lies at a sample, and that sample (which may be outside x).
template <class Index>
struct Meeting {
  Index tap, source;

  static CLCAE_BOTH Meeting of(Index out, Index up, Index down, Index pad) {
    const Index corner = out * down - pad;
    Index tap = modulo<Index>(-corner, up);
    Index source = (corner + tap) / up;
    if (source < 0) {
      tap -= source * up;
      source = 0;
    }
    return {tap, source};
  }
};

// Computes element `index` of the result, in the order of memory.
template <class T, class Index>
CLCAE_BOTH void upfirdn2d_element(const Upfirdn2d<T>& op, Index index) {
  const Upfirdn2dCall& call = op.call;
  const Index channels = static_cast<Index>(call.channels);
  const Index height = static_cast<Index>(call.out_height);
  const Index width = static_cast<Index>(call.out_width);
  Index rest = index, channel = 0;
  if (call.channels_last) {
    channel = rest % channels;
    rest /= channels;
  }
  const Index column = rest % width;
  rest /= width;
  const Index row = rest % height;
  rest /= height;
  if (!call.channels_last) {
    channel = rest % channels;
    rest /= channels;
  }
  const T* plane = op.plane(rest, channel);
  const Index taps_y = static_cast<Index>(call.taps_y), taps_x = static_cast<Index>(call.taps_x);
  const Index up_y = static_cast<Index>(call.up_y), up_x = static_cast<Index>(call.up_x);
  const auto down = Meeting<Index>::of(row, up_y, static_cast<Index>(call.down_y),
                                       static_cast<Index>(call.pad_y));
  const auto right = Meeting<Index>::of(column, up_x, static_cast<Index>(call.down_x),
                                        static_cast<Index>(call.pad_x));
  Wide<T> sum = 0;
  for (Index i = down.tap, y = down.source; i < taps_y && y < call.in_height; i += up_y, ++y) {
    const T* line = plane + y * call.stride_y;
    for (Index j = right.tap, x = right.source; j < taps_x && x < call.in_width; j += up_x, ++x) {
      sum += op.tap(i, j) * widen(line[x * call.stride_x]);
    }
  }
  op.y[index] = Narrow<T>::from(sum * op.gain);
}

// Whether every index of the general form is below 2^31.
inline bool index_fits_32(const Upfirdn2dCall& call) {
  const int64_t most = (int64_t(1) << 31) - (1 << 24);
  const int64_t far_y = call.out_height * call.down_y + call.pad_y + call.taps_y * call.up_y;
  const int64_t far_x = call.out_width * call.down_x + call.pad_x + call.taps_x * call.up_x;
  return call.samples * call.channels * call.out_height * call.out_width < most && far_y < most &&
         far_x < most && call.pad_y > -most && call.pad_x > -most;
}

// The fast forms: 4 x 4 taps, and up or down by two or neither. 0 is the general form.
enum class Form : int32_t { general = 0, planes = 1, channels_last = 2 };

inline bool is_common(const Upfirdn2dCall& call) {
  const bool square = call.taps_y == 4 && call.taps_x == 4 && call.up_y == call.up_x &&
                      call.down_y == call.down_x;
  const bool steps = (call.up_y == 1 && call.down_y <= 2) || (call.up_y == 2 && call.down_y == 1);
  // double, used to check derivatives, has the general form only.
  return square && steps && call.element != static_cast<int32_t>(Element::float64);
}

inline Form form_of(const Upfirdn2dCall& call) {
  if (!is_common(call)) return Form::general;
  const int64_t far = int64_t(1) << 29;  // rows and columns are counted in 32 bits
  if (call.in_height > far || call.in_width > far || call.out_height > far ||
      call.out_width * (call.channels_last ? call.channels : 1) > far || call.pad_y > far ||
      call.pad_x > far || call.pad_y < -far || call.pad_x < -far) {
    return Form::general;
  }
  if (!call.channels_last) {  // a tile is 64 wide; smaller pictures would leave it empty
    const bool fills = call.out_width >= 32 && call.out_height >= 8;
    return call.stride_x == 1 && fills ? Form::planes : Form::general;
  }
  const int64_t lane_bytes = call.element == static_cast<int32_t>(Element::float32) ? 16 : 8;
  const bool vectors = call.stride_channel == 1 && call.channels % 4 == 0 &&
                       call.stride_x % 4 == 0 && call.stride_y % 4 == 0 &&
                       call.stride_sample % 4 == 0 &&
                       reinterpret_cast<uintptr_t>(call.x) % lane_bytes == 0 &&
                       reinterpret_cast<uintptr_t>(call.y) % lane_bytes == 0;
  return vectors ? Form::channels_last : Form::general;
}

}  // namespace clcae
