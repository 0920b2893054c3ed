// Registers the CUDA kernels for the operators that clcae/ops/library.py defines.
//
// Small headers only (no torch/extension.h), which keeps the first build short.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <optional>

#include "launch.h"

namespace {

using at::Tensor;

int32_t element_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case at::kHalf: return static_cast<int32_t>(clcae::Element::float16);
    case at::kBFloat16: return static_cast<int32_t>(clcae::Element::bfloat16);
    case at::kFloat: return static_cast<int32_t>(clcae::Element::float32);
    case at::kDouble: return static_cast<int32_t>(clcae::Element::float64);
    default: TORCH_CHECK_VALUE(false, "no kernel for ", x.scalar_type());
  }
}

// Memory layout of a result; must agree with _layout in library.py.
bool is_channels_last(const Tensor& x) {
  return x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast) && !x.is_contiguous();
}

at::MemoryFormat layout(bool channels_last) {
  return channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

void* current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

void check_beside(const Tensor& other, const Tensor& x, const char* name) {
  TORCH_CHECK_VALUE(other.device() == x.device() && other.scalar_type() == x.scalar_type(), name,
                    " is ", other.scalar_type(), " on ", other.device(), ", expected ",
                    x.scalar_type(), " on ", x.device());
}

Tensor bias_act(const Tensor& given, const std::optional<Tensor>& bias,
                const std::optional<Tensor>& noise, int64_t dim, double slope, double gain,
                std::optional<double> clamp) {
  const c10::cuda::CUDAGuard guard(given.device());
  const bool last = dim == 1 && is_channels_last(given);
  const Tensor x = given.contiguous(layout(last));
  const Tensor y = at::empty_like(x, x.options(), layout(last));
  if (x.numel() == 0) return y;
  TORCH_CHECK_VALUE(dim >= 0 && dim < x.dim(), "dim is ", dim, " of a tensor of rank ", x.dim());
  const int64_t channels = x.size(dim);
  int64_t pixels = 1;
  for (int64_t axis = dim + 1; axis < x.dim(); ++axis) pixels *= x.size(axis);

  clcae::BiasActCall call{};
  Tensor own_bias, own_noise;  // alive until the kernel has been queued
  if (bias) {
    check_beside(*bias, x, "bias");
    TORCH_CHECK_VALUE(bias->dim() == 1 && bias->size(0) == channels, "bias has ", bias->numel(),
                      " values, expected ", channels);
    own_bias = bias->contiguous();
    call.bias = own_bias.const_data_ptr();
  }
  if (noise) {
    check_beside(*noise, x, "noise");
    const int64_t maps = noise->numel() / pixels;
    TORCH_CHECK_VALUE(dim == 1 && noise->numel() == maps * pixels &&
                          (maps == 1 || maps == x.size(0)),
                      "noise has ", noise->numel(), " values, expected ", pixels, " or ", x.size(0),
                      " times as many");
    own_noise = noise->contiguous();
    call.noise = own_noise.const_data_ptr();
    call.own_noise = maps > 1;
  }
  // With rows of one element plain memory is channels last as well.
  call.channels_last = last || pixels == 1;
  call.outer = call.channels_last ? pixels : channels;
  call.inner = call.channels_last ? channels : pixels;
  call.x = x.const_data_ptr();
  call.y = y.mutable_data_ptr();
  call.size = x.numel();
  call.slope = slope;
  call.gain = gain;
  call.clamp = clamp.value_or(-1.0);
  call.element = element_of(x);
  C10_CUDA_CHECK(static_cast<cudaError_t>(clcae::launch_bias_act(call, current_stream())));
  return y;
}

Tensor bias_act_backward(const Tensor& grad, const Tensor& result, double slope, double gain,
                         std::optional<double> clamp) {
  const c10::cuda::CUDAGuard guard(grad.device());
  check_beside(result, grad, "the result");
  TORCH_CHECK_VALUE(grad.sizes() == result.sizes(), "the gradient has shape ", grad.sizes(),
                    ", expected ", result.sizes());
  const bool last = is_channels_last(result);
  const Tensor y = result.contiguous(layout(last)), x = grad.contiguous(layout(last));
  const Tensor out = at::empty_like(y, y.options(), layout(last));
  if (out.numel() == 0) return out;
  clcae::BiasActCall call{};
  call.x = x.const_data_ptr();
  call.result = y.const_data_ptr();
  call.y = out.mutable_data_ptr();
  call.size = out.numel();
  call.outer = 1;
  call.inner = out.numel();
  call.slope = slope;
  call.gain = gain;
  call.clamp = clamp.value_or(-1.0);
  call.element = element_of(out);
  C10_CUDA_CHECK(static_cast<cudaError_t>(clcae::launch_bias_act_backward(call, current_stream())));
  return out;
}

Tensor upfirdn2d(const Tensor& x, const Tensor& given_filter, at::IntArrayRef up,
                 at::IntArrayRef down, at::IntArrayRef padding, double gain, bool flip) {
  const c10::cuda::CUDAGuard guard(x.device());
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK_VALUE(x.dim() == 4, "x has rank ", x.dim(), ", expected 4");
  TORCH_CHECK_VALUE(given_filter.device() == x.device() && given_filter.scalar_type() == wide &&
                        (given_filter.dim() == 1 || given_filter.dim() == 2),
                    "the filter is ", given_filter.scalar_type(), " of rank ", given_filter.dim(),
                    " on ", given_filter.device(), ", expected ", wide, " of rank 1 or 2 on ",
                    x.device());
  TORCH_CHECK_VALUE(up.size() == 2 && down.size() == 2 && padding.size() == 4 && up[0] > 0 &&
                        up[1] > 0 && down[0] > 0 && down[1] > 0,
                    "up is ", up, ", down ", down, ", padding ", padding,
                    ", expected two factors, two factors and four counts");
  const Tensor filter = given_filter.contiguous();
  clcae::Upfirdn2dCall call{};
  call.taps_y = filter.size(0);
  call.taps_x = filter.size(-1);
  call.samples = x.size(0);
  call.channels = x.size(1);
  call.in_height = x.size(2);
  call.in_width = x.size(3);
  const int64_t height = call.in_height * up[0] + padding[0] + padding[1] - call.taps_y;
  const int64_t width = call.in_width * up[1] + padding[2] + padding[3] - call.taps_x;
  TORCH_CHECK_VALUE(height >= 0 && width >= 0, "padded input is smaller than the filter");
  call.out_height = height / down[0] + 1;
  call.out_width = width / down[1] + 1;
  const bool last = is_channels_last(x);
  const Tensor y = at::empty({call.samples, call.channels, call.out_height, call.out_width},
                             x.options(), layout(last));
  if (y.numel() == 0) return y;
  call.x = x.const_data_ptr();
  call.filter = filter.const_data_ptr();
  call.y = y.mutable_data_ptr();
  call.stride_sample = x.stride(0);
  call.stride_channel = x.stride(1);
  call.stride_y = x.stride(2);
  call.stride_x = x.stride(3);
  call.up_y = up[0];
  call.up_x = up[1];
  call.down_y = down[0];
  call.down_x = down[1];
  call.pad_y = padding[0];
  call.pad_x = padding[2];
  call.gain = gain;
  call.separable = filter.dim() == 1;
  call.flip = flip;
  call.channels_last = last;
  call.element = element_of(x);
  C10_CUDA_CHECK(static_cast<cudaError_t>(clcae::launch_upfirdn2d(call, current_stream())));
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(clcae, CUDA, library) {
  library.impl("bias_act", &bias_act);
  library.impl("bias_act_backward", &bias_act_backward);
  library.impl("upfirdn2d", &upfirdn2d);
}
