// Computes the number of blocks of a grid-stride loop.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace clcae {

// One block for each piece of work, but at most a few for each multiprocessor.
inline unsigned blocks_for(int64_t wanted) {
  int device = 0, processors = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
    processors = 64;
  }
  const int64_t most = int64_t(processors) * 64;
  return static_cast<unsigned>(wanted < most ? wanted : most);
}

}  // namespace clcae
