// The device functions of the kernels, on the CPU: thread after thread, block after block.
//
// A shared library for conftest.py (values against the references), and, with -DSWEEP, a program
// that runs random calls in buffers of the exact size, for the sanitizers.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <vector>

#include "bias_act.h"
#include "upfirdn2d_patches.h"

using namespace clcae;

namespace {

template <class T, class Index, int COUNT>
void run_bias_act(const BiasAct<T>& op, bool backward) {
  const Index vectors = static_cast<Index>((op.size + COUNT - 1) / COUNT);
  for (Index vector = 0; vector < vectors; ++vector) {
    if (backward) {
      bias_act_backward_lanes<T, Index, COUNT>(op, vector);
    } else {
      bias_act_lanes<T, Index, COUNT>(op, vector);
    }
  }
}

template <class T>
void choose_bias_act(const BiasActCall& call, bool backward, bool wide_index) {
  const BiasAct<T> op(call);
  if (vectors_fit(op)) {
    wide_index ? run_bias_act<T, int64_t, LONGEST<T>>(op, backward)
               : run_bias_act<T, int32_t, LONGEST<T>>(op, backward);
  } else {
    wide_index ? run_bias_act<T, int64_t, 1>(op, backward)
               : run_bias_act<T, int32_t, 1>(op, backward);
  }
}

template <class T, int UP, int DOWN>
void run_common(const Upfirdn2d<T>& op, Form form) {
  using P = Patch<UP, DOWN>;
  float taps[TAPS * TAPS];
  read_taps(op, taps);
  if (form == Form::planes) {
    alignas(16) static float shared[P::IN_HEIGHT * P::PITCH];
    for (int64_t tile = 0; tile < TilePlace<UP, DOWN>::count(op.call); ++tile) {
      for (float& value : shared) value = std::numeric_limits<float>::quiet_NaN();
      for (int thread = 0; thread < P::THREADS; ++thread) {
        fill_tile<T, UP, DOWN>(op, tile, thread, shared);
      }
      for (int thread = 0; thread < P::THREADS; ++thread) {
        filter_tile<T, UP, DOWN>(op, taps, tile, thread, shared);
      }
    }
    return;
  }
  const int64_t strips = Strips<UP, DOWN>::per_sample(op.call) * op.call.samples;
  for (int64_t strip = 0; strip < strips; ++strip) {
    for (int patch = 0; patch < Strips<UP, DOWN>::per_strip(op.call); ++patch) {
      filter_channels<T, UP, DOWN>(op, taps, strip, patch);
    }
  }
}

template <class T, class Index>
void run_general(const Upfirdn2d<T>& op) {
  const Upfirdn2dCall& call = op.call;
  const int64_t size = call.samples * call.channels * call.out_height * call.out_width;
  for (Index at = 0; at < static_cast<Index>(size); ++at) upfirdn2d_element<T, Index>(op, at);
}

template <class T>
void choose_general(const Upfirdn2dCall& call, bool wide_index) {
  const Upfirdn2d<T> op(call);
  wide_index ? run_general<T, int64_t>(op) : run_general<T, int32_t>(op);
}

template <class T>
void choose_common(const Upfirdn2dCall& call, Form form) {
  const Upfirdn2d<T> op(call);
  if (call.up_y == 2) {
    run_common<T, 2, 1>(op, form);
  } else if (call.down_y == 2) {
    run_common<T, 1, 2>(op, form);
  } else {
    run_common<T, 1, 1>(op, form);
  }
}

}  // namespace

extern "C" {

// 0, or 1 for an element type that the host has not.
int emulate_bias_act(const BiasActCall* call, int backward, int wide_index) {
  switch (static_cast<Element>(call->element)) {
    case Element::bfloat16: choose_bias_act<BFloat16>(*call, backward, wide_index); return 0;
    case Element::float32: choose_bias_act<float>(*call, backward, wide_index); return 0;
    case Element::float64: choose_bias_act<double>(*call, backward, wide_index); return 0;
    default: return 1;
  }
}

// The form that a GPU would choose.
int upfirdn2d_form(const Upfirdn2dCall* call) { return static_cast<int>(form_of(*call)); }

int emulate_upfirdn2d(const Upfirdn2dCall* call, int form, int wide_index) {
  const Form chosen = static_cast<Form>(form);
  const bool general = chosen == Form::general;
  switch (static_cast<Element>(call->element)) {
    case Element::bfloat16:
      general ? choose_general<BFloat16>(*call, wide_index)
              : choose_common<BFloat16>(*call, chosen);
      return 0;
    case Element::float32:
      general ? choose_general<float>(*call, wide_index) : choose_common<float>(*call, chosen);
      return 0;
    case Element::float64:
      if (!general) return 1;
      choose_general<double>(*call, wide_index);
      return 0;
    default: return 1;
  }
}

}  // extern "C"

#ifdef SWEEP

namespace {

int between(int low, int high) { return low + std::rand() % (high - low + 1); }

// Random bytes, at an offset from the strictest alignment; the end is the end of the allocation.
struct Buffer {
  std::vector<char> bytes;
  int offset;
  Buffer(int64_t count, int size, int shift) : bytes(count * size + shift), offset(shift) {
    for (char& byte : bytes) byte = static_cast<char>(std::rand() % 64);
  }
  void* at() { return bytes.data() + offset; }
};

void sweep_bias_act() {
  BiasActCall call{};
  call.element = between(1, 3);
  const int bytes = call.element == 1 ? 2 : call.element == 2 ? 4 : 8;
  const int samples = between(1, 3), channels = between(1, 9), pixels = between(1, 40);
  const int shift = between(0, 1) * bytes;
  call.size = int64_t(samples) * channels * pixels;
  call.channels_last = between(0, 1);
  call.own_noise = between(0, 1);
  call.outer = call.channels_last ? pixels : channels;
  call.inner = call.channels_last ? channels : pixels;
  call.slope = 0.2, call.gain = 1.4, call.clamp = between(-1, 1);
  Buffer x(call.size, bytes, shift), y(call.size, bytes, shift), bias(channels, bytes, 0);
  Buffer noise(int64_t(pixels) * (call.own_noise ? samples : 1), bytes, 0);
  call.x = x.at(), call.y = y.at(), call.result = x.at(), call.bias = bias.at();
  call.noise = between(0, 1) ? noise.at() : nullptr;
  emulate_bias_act(&call, between(0, 1), between(0, 1));
}

bool sweep_upfirdn2d() {
  Upfirdn2dCall call{};
  call.element = between(1, 2);
  const int bytes = call.element == 1 ? 2 : 4;
  const bool common = between(0, 3) > 0;
  call.samples = between(1, 2), call.channels = between(1, 2) * (between(0, 1) ? 4 : 1);
  call.in_height = between(1, 70), call.in_width = between(1, 150);
  call.taps_y = common ? 4 : between(1, 7), call.taps_x = common ? 4 : between(1, 7);
  call.up_y = between(1, common ? 2 : 3);
  call.down_y = common && call.up_y == 2 ? 1 : between(1, common ? 2 : 3);
  call.up_x = common ? call.up_y : between(1, 3);
  call.down_x = common ? call.down_y : between(1, 3);
  call.pad_y = between(-3, 6), call.pad_x = between(-3, 6);
  const int64_t high = call.in_height * call.up_y + call.pad_y + between(-2, 4) - call.taps_y;
  const int64_t wide = call.in_width * call.up_x + call.pad_x + between(-2, 4) - call.taps_x;
  if (high < 0 || wide < 0) return false;
  call.out_height = high / call.down_y + 1, call.out_width = wide / call.down_x + 1;
  call.gain = 1.0, call.flip = between(0, 1), call.channels_last = between(0, 1);
  call.stride_x = call.channels_last ? call.channels : 1;
  call.stride_y = call.stride_x * call.in_width;
  call.stride_channel = call.channels_last ? 1 : call.in_height * call.in_width;
  call.stride_sample = call.channels * call.in_height * call.in_width;
  const int shift = between(0, 2) ? 0 : bytes;
  Buffer x(call.samples * call.stride_sample, bytes, shift);
  Buffer filter(call.taps_y * call.taps_x, 4, 0);
  Buffer y(call.samples * call.channels * call.out_height * call.out_width, bytes, shift);
  call.x = x.at(), call.filter = filter.at(), call.y = y.at();
  emulate_upfirdn2d(&call, upfirdn2d_form(&call), between(0, 1));
  return upfirdn2d_form(&call) != 0;
}

}  // namespace

int main() {
  std::srand(7);
  int fast = 0;
  for (int turn = 0; turn < 400; ++turn) {
    sweep_bias_act();
    fast += sweep_upfirdn2d();
  }
  std::printf("%d\n", fast);
  return 0;
}

#endif
