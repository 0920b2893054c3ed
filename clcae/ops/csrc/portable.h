// Shared by device code and its host build: qualifiers, element types, short vectors.
//
// All arithmetic of the kernels is in headers that nvcc compiles for the device and g++ for the
// host, so that tests run it without a GPU.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define CLCAE_BOTH __host__ __device__ __forceinline__
#define CLCAE_UNROLL _Pragma("unroll")
#define CLCAE_UNROLL_4 _Pragma("unroll 4")
#else
#define CLCAE_BOTH inline
#define CLCAE_UNROLL
#define CLCAE_UNROLL_4
#endif

namespace clcae {

// Codes of the element types, passed between languages.
enum class Element : int32_t { float16 = 0, bfloat16 = 1, float32 = 2, float64 = 3 };

// Type in which elements are computed.
template <class T>
struct WideOf {
  using type = float;
};
template <>
struct WideOf<double> {
  using type = double;
};
template <class T>
using Wide = typename WideOf<T>::type;

CLCAE_BOTH float widen(float value) { return value; }
CLCAE_BOTH double widen(double value) { return value; }

template <class T>
struct Narrow {
  static CLCAE_BOTH T from(Wide<T> value) { return value; }
};

#ifdef __CUDACC__
using Half = __half;
using BFloat16 = __nv_bfloat16;

CLCAE_BOTH float widen(Half value) { return __half2float(value); }
CLCAE_BOTH float widen(BFloat16 value) { return __bfloat162float(value); }
template <>
struct Narrow<Half> {
  static CLCAE_BOTH Half from(float value) { return __float2half_rn(value); }
};
template <>
struct Narrow<BFloat16> {
  static CLCAE_BOTH BFloat16 from(float value) { return __float2bfloat16_rn(value); }
};
#else
// The host's bfloat16: the upper half of a float, rounded to nearest even.
struct BFloat16 {
  uint16_t bits;
};

inline float widen(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}
template <>
struct Narrow<BFloat16> {
  static BFloat16 from(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value != value) return {0x7fc0};
    return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
  }
};
#endif

// Adjacent elements that are loaded or stored by one instruction.
template <class T, int COUNT>
struct alignas(sizeof(T) * COUNT) Lanes {
  T at[COUNT];
};

template <class T, int COUNT>
CLCAE_BOTH Lanes<T, COUNT> read_lanes(const T* from) {
  return *reinterpret_cast<const Lanes<T, COUNT>*>(from);
}

template <class T, int COUNT>
CLCAE_BOTH void write_lanes(T* to, const Lanes<T, COUNT>& lanes) {
  *reinterpret_cast<Lanes<T, COUNT>*>(to) = lanes;
}

template <class T, int COUNT>
CLCAE_BOTH bool is_aligned(const T* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % sizeof(Lanes<T, COUNT>) == 0;
}

CLCAE_BOTH int64_t ceil_div(int64_t value, int64_t by) { return (value + by - 1) / by; }

// Remainder of division, never negative.
template <class Index>
CLCAE_BOTH Index modulo(Index value, Index by) {
  const Index rest = value % by;
  return rest < 0 ? rest + by : rest;
}

}  // namespace clcae
