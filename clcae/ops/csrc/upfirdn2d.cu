// The kernels of upfirdn2d; arithmetic: upfirdn2d.h (any case), upfirdn2d_patches.h (4 x 4 taps).
#include "grid.cuh"
#include "launch.h"
#include "upfirdn2d_patches.h"

namespace clcae {
namespace {

constexpr int THREADS = 256;

template <class T, class Index>
__global__ void __launch_bounds__(THREADS, 4) general_kernel(const Upfirdn2d<T> op, Index size) {
  const Index stride = static_cast<Index>(gridDim.x) * THREADS;
  Index at = static_cast<Index>(blockIdx.x) * THREADS + threadIdx.x;
  for (; at < size; at += stride) upfirdn2d_element<T, Index>(op, at);
}

template <class T, int UP, int DOWN>
__global__ void __launch_bounds__(Patch<UP, DOWN>::THREADS)
    planes_kernel(const Upfirdn2d<T> op, int64_t tiles) {
  using P = Patch<UP, DOWN>;
  __shared__ alignas(16) float shared[P::IN_HEIGHT * P::PITCH];
  float taps[TAPS * TAPS];
  read_taps(op, taps);
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    fill_tile<T, UP, DOWN>(op, tile, threadIdx.x, shared);
    __syncthreads();
    filter_tile<T, UP, DOWN>(op, taps, tile, threadIdx.x, shared);
    __syncthreads();  // the next tile overwrites what was read
  }
}

template <class T, int UP, int DOWN>
__global__ void __launch_bounds__(THREADS)
    channels_kernel(const Upfirdn2d<T> op, int64_t blocks, int blocks_per_strip, int per_strip) {
  float taps[TAPS * TAPS];
  read_taps(op, taps);
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t strip = block / blocks_per_strip;
    const int patch = static_cast<int>(block - strip * blocks_per_strip) * THREADS + threadIdx.x;
    if (patch < per_strip) filter_channels<T, UP, DOWN>(op, taps, strip, patch);
  }
}

template <class T, int UP, int DOWN>
void start_common(const Upfirdn2d<T>& op, Form form, cudaStream_t stream) {
  if (form == Form::planes) {
    const int64_t tiles = TilePlace<UP, DOWN>::count(op.call);
    planes_kernel<T, UP, DOWN>
        <<<blocks_for(tiles), Patch<UP, DOWN>::THREADS, 0, stream>>>(op, tiles);
    return;
  }
  const int per_strip = Strips<UP, DOWN>::per_strip(op.call);
  const int blocks_per_strip = static_cast<int>(ceil_div(per_strip, THREADS));
  const int64_t blocks = Strips<UP, DOWN>::per_sample(op.call) * op.call.samples * blocks_per_strip;
  channels_kernel<T, UP, DOWN>
      <<<blocks_for(blocks), THREADS, 0, stream>>>(op, blocks, blocks_per_strip, per_strip);
}

template <class T>
void start_general(const Upfirdn2d<T>& op, cudaStream_t stream) {
  const Upfirdn2dCall& call = op.call;
  const int64_t size = call.samples * call.channels * call.out_height * call.out_width;
  const unsigned blocks = blocks_for(ceil_div(size, THREADS));
  if (index_fits_32(call)) {
    general_kernel<T, int32_t>
        <<<blocks, THREADS, 0, stream>>>(op, static_cast<int32_t>(size));
  } else {
    general_kernel<T, int64_t><<<blocks, THREADS, 0, stream>>>(op, size);
  }
}

template <class T>
void choose(const Upfirdn2dCall& call, cudaStream_t stream) {
  const Upfirdn2d<T> op(call);
  const Form form = form_of(call);
  if (form == Form::general) {
    start_general(op, stream);
  } else if (call.up_y == 2) {
    start_common<T, 2, 1>(op, form, stream);
  } else if (call.down_y == 2) {
    start_common<T, 1, 2>(op, form, stream);
  } else {
    start_common<T, 1, 1>(op, form, stream);
  }
}

}  // namespace

int launch_upfirdn2d(const Upfirdn2dCall& call, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (static_cast<Element>(call.element)) {
    case Element::float16: choose<Half>(call, on); break;
    case Element::bfloat16: choose<BFloat16>(call, on); break;
    case Element::float32: choose<float>(call, on); break;
    case Element::float64: start_general(Upfirdn2d<double>(call), on); break;
  }
  return cudaGetLastError();
}

}  // namespace clcae
