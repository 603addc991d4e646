// The CPU as a device: the Llama architecture from GGUF files, behind the device ABI.
//
//   auto driver = backends::Driver::FromApi(backends::cpu::CpuDeviceApi());
//
// Host-paged KV. Options (reticle_device_config.options):
//   kv           "f32": keys and values in full precision, whatever kv_type says; for comparisons
//   populate     "kv": takes the memory of the KV pool when the device is opened, not when tokens
//                first come to lie there; "none" (default)
//   step_tokens  prompt tokens that one step feeds at most, 1 .. 8192 (default 512)
#ifndef RETICLE_BACKENDS_CPU_CPU_DEVICE_H_
#define RETICLE_BACKENDS_CPU_CPU_DEVICE_H_

#include "backends/abi/reticle_device.h"

namespace reticle::backends::cpu {

// A static table. Thread-safe.
const reticle_device_api* CpuDeviceApi();

}  // namespace reticle::backends::cpu

#endif  // RETICLE_BACKENDS_CPU_CPU_DEVICE_H_
