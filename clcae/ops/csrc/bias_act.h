// Computes noise, bias, leaky ReLU, gain and clamp of one short vector, the work of one thread.
//
// y = clamp(gain * act(x + noise + bias)), act(v) = v > 0 ? v : slope * v; slope 1 is "linear".
// The derivative is computed from y alone: its sign is that of act (times the gain's), and the
// gradient is zero where y lies at the clamp.
#pragma once

#include "portable.h"

namespace clcae {

// Arguments of a call, as plain data. Memory is [samples, outer, inner], dense.
struct BiasActCall {
  const void* x;      // the gradient, in the backward call
  const void* bias;   // [channels] or null
  const void* noise;  // [pixels] or, with own_noise, [samples, pixels]; or null
  const void* result; // y of the forward call, in the backward call
  void* y;
  int64_t size;
  int64_t outer;
  int64_t inner;
  double slope;
  double gain;
  double clamp;           // negative: none
  int32_t channels_last;  // 1: the channels are `inner` and the pixels `outer`; 0: the reverse
  int32_t own_noise;
  int32_t element;
};

template <class T>
struct BiasAct {
  const T* x;
  const T* bias;
  const T* noise;
  const T* result;
  T* y;
  int64_t size;
  int64_t outer;
  int64_t inner;
  Wide<T> slope;
  Wide<T> gain;
  Wide<T> limit;
  bool clamps;
  bool channels_last;
  bool own_noise;

  explicit BiasAct(const BiasActCall& call)
      : x(static_cast<const T*>(call.x)),
        bias(static_cast<const T*>(call.bias)),
        noise(static_cast<const T*>(call.noise)),
        result(static_cast<const T*>(call.result)),
        y(static_cast<T*>(call.y)),
        size(call.size),
        outer(call.outer),
        inner(call.inner),
        slope(static_cast<Wide<T>>(call.slope)),
        gain(static_cast<Wide<T>>(call.gain)),
        // Rounded as results are, so that a clamped result equals the limit.
        limit(widen(Narrow<T>::from(static_cast<Wide<T>>(call.clamp)))),
        clamps(call.clamp >= 0),
        channels_last(call.channels_last != 0),
        own_noise(call.own_noise != 0) {}
};

// Coordinates of an element: one division for a vector, increments from there.
template <class Index>
struct Place {
  Index sample, outer, inner;

  template <class T>
  static CLCAE_BOTH Place of(const BiasAct<T>& op, Index element) {
    const Index row = element / static_cast<Index>(op.inner);
    const Index sample = row / static_cast<Index>(op.outer);
    return {sample, row - sample * static_cast<Index>(op.outer),
            element - row * static_cast<Index>(op.inner)};
  }

  template <class T>
  CLCAE_BOTH void step(const BiasAct<T>& op) {
    if (++inner < op.inner) return;
    inner = 0;
    if (++outer < op.outer) return;
    outer = 0;
    ++sample;
  }

  template <class T>
  CLCAE_BOTH Wide<T> bias(const BiasAct<T>& op) const {
    return op.bias ? widen(op.bias[op.channels_last ? inner : outer]) : Wide<T>(0);
  }

  template <class T>
  CLCAE_BOTH Wide<T> noise(const BiasAct<T>& op) const {
    const Index pixels = static_cast<Index>(op.channels_last ? op.outer : op.inner);
    const Index pixel = op.channels_last ? outer : inner;
    return widen(op.noise[op.own_noise ? sample * pixels + pixel : pixel]);
  }
};

template <class T>
CLCAE_BOTH Wide<T> activated(const BiasAct<T>& op, Wide<T> value) {
  value = (value > 0 ? value : value * op.slope) * op.gain;
  if (op.clamps) {  // comparisons, not fmin and fmax: those would turn nan into the limit
    value = value > op.limit ? op.limit : value;
    value = value < -op.limit ? -op.limit : value;
  }
  return value;
}

template <class T>
CLCAE_BOTH Wide<T> derived(const BiasAct<T>& op, Wide<T> grad, Wide<T> y) {
  const bool positive = op.gain < 0 ? y < 0 : y > 0;
  const bool stopped = op.clamps && !(y < op.limit && y > -op.limit);
  const Wide<T> value = grad * op.gain;
  return stopped ? Wide<T>(0) : positive ? value : value * op.slope;
}

// Processes elements vector * COUNT to vector * COUNT + COUNT - 1, as far as they exist.
template <class T, class Index, int COUNT>
CLCAE_BOTH void bias_act_lanes(const BiasAct<T>& op, Index vector) {
  const Index first = vector * COUNT;
  const bool whole = op.size - first >= COUNT;
  // Within a vector the channel stays the same, and no row ends.
  const bool steady = !op.channels_last && op.inner % COUNT == 0;
  Lanes<T, COUNT> lanes;
  if (whole) lanes = read_lanes<T, COUNT>(op.x + first);
  Place<Index> place = Place<Index>::of(op, first);
  Wide<T> bias = place.bias(op);
  CLCAE_UNROLL
  for (int lane = 0; lane < COUNT; ++lane) {
    if (!whole && first + lane >= op.size) break;
    Wide<T> value = widen(whole ? lanes.at[lane] : op.x[first + lane]);
    if (op.noise) value += place.noise(op);
    const T y = Narrow<T>::from(activated(op, value + bias));
    if (whole) {
      lanes.at[lane] = y;
    } else {
      op.y[first + lane] = y;
    }
    if (steady) {
      ++place.inner;
    } else if (lane + 1 < COUNT && first + lane + 1 < op.size) {
      place.step(op);
      bias = place.bias(op);
    }
  }
  if (whole) write_lanes<T, COUNT>(op.y + first, lanes);
}

template <class T, class Index, int COUNT>
CLCAE_BOTH void bias_act_backward_lanes(const BiasAct<T>& op, Index vector) {
  const Index first = vector * COUNT;
  if (op.size - first >= COUNT) {
    Lanes<T, COUNT> grad = read_lanes<T, COUNT>(op.x + first);
    const Lanes<T, COUNT> result = read_lanes<T, COUNT>(op.result + first);
    CLCAE_UNROLL
    for (int lane = 0; lane < COUNT; ++lane) {
      const Wide<T> value = derived(op, widen(grad.at[lane]), widen(result.at[lane]));
      grad.at[lane] = Narrow<T>::from(value);
    }
    write_lanes<T, COUNT>(op.y + first, grad);
    return;
  }
  for (Index at = first; at < op.size; ++at) {
    op.y[at] = Narrow<T>::from(derived(op, widen(op.x[at]), widen(op.result[at])));
  }
}

// Vectors have 16 bytes if all pointers of the call are aligned to that.
template <class T>
constexpr int LONGEST = 16 / sizeof(T);

template <class T>
inline bool vectors_fit(const BiasAct<T>& op) {
  return is_aligned<T, LONGEST<T>>(op.x) && is_aligned<T, LONGEST<T>>(op.result) &&
         is_aligned<T, LONGEST<T>>(op.y);
}

// Whether every index is below 2^31, also after adding the stride of a whole grid.
inline bool index_fits_32(const BiasActCall& call) {
  return call.size < (int64_t(1) << 31) - (1 << 24);
}

}  // namespace clcae
