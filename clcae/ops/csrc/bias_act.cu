// The kernels of bias_act: a grid-stride loop over vectors of 16 bytes. The formulas: bias_act.h.
#include "grid.cuh"
#include "launch.h"

namespace clcae {
namespace {

constexpr int THREADS = 256;

template <class T, class Index, int COUNT, bool BACKWARD>
__global__ void __launch_bounds__(THREADS, 4) bias_act_kernel(const BiasAct<T> op) {
  const Index vectors = static_cast<Index>((op.size + COUNT - 1) / COUNT);
  const Index stride = static_cast<Index>(gridDim.x) * THREADS;
  Index vector = static_cast<Index>(blockIdx.x) * THREADS + threadIdx.x;
  for (; vector < vectors; vector += stride) {
    if constexpr (BACKWARD) {
      bias_act_backward_lanes<T, Index, COUNT>(op, vector);
    } else {
      bias_act_lanes<T, Index, COUNT>(op, vector);
    }
  }
}

template <class T, int COUNT, bool BACKWARD>
void start(const BiasActCall& call, cudaStream_t stream) {
  const BiasAct<T> op(call);
  const unsigned blocks = blocks_for(ceil_div(ceil_div(call.size, COUNT), THREADS));
  if (index_fits_32(call)) {
    bias_act_kernel<T, int32_t, COUNT, BACKWARD><<<blocks, THREADS, 0, stream>>>(op);
  } else {
    bias_act_kernel<T, int64_t, COUNT, BACKWARD><<<blocks, THREADS, 0, stream>>>(op);
  }
}

template <class T, bool BACKWARD>
void choose(const BiasActCall& call, cudaStream_t stream) {
  if (vectors_fit(BiasAct<T>(call))) {
    start<T, LONGEST<T>, BACKWARD>(call, stream);
  } else {
    start<T, 1, BACKWARD>(call, stream);
  }
}

template <bool BACKWARD>
int launch(const BiasActCall& call, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (static_cast<Element>(call.element)) {
    case Element::float16: choose<Half, BACKWARD>(call, on); break;
    case Element::bfloat16: choose<BFloat16, BACKWARD>(call, on); break;
    case Element::float32: choose<float, BACKWARD>(call, on); break;
    case Element::float64: choose<double, BACKWARD>(call, on); break;
  }
  return cudaGetLastError();
}

}  // namespace

int launch_bias_act(const BiasActCall& call, void* stream) { return launch<false>(call, stream); }
int launch_bias_act_backward(const BiasActCall& call, void* stream) {
  return launch<true>(call, stream);
}

}  // namespace clcae
