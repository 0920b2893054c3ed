// Plain functions between the kernels (.cu, no torch in them) and their binding to torch (.cpp).
#pragma once

#include "bias_act.h"
#include "upfirdn2d.h"

namespace clcae {

// Each starts a kernel on a cudaStream_t of the current device; the cudaError_t, 0 for success.
int launch_bias_act(const BiasActCall& call, void* stream);
int launch_bias_act_backward(const BiasActCall& call, void* stream);
int launch_upfirdn2d(const Upfirdn2dCall& call, void* stream);

}  // namespace clcae
