// Functions that launch the kernels (.cu, without torch), for their binding to torch (.cpp).
#pragma once

#include "bias_act.h"
#include "upfirdn2d.h"

namespace clcae {

// Each launches a kernel on a cudaStream_t of the current device; returns the cudaError_t.
int launch_bias_act(const BiasActCall& call, void* stream);
int launch_bias_act_backward(const BiasActCall& call, void* stream);
int launch_upfirdn2d(const Upfirdn2dCall& call, void* stream);

}  // namespace clcae
