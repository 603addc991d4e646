/* Shared libraries that Driver::Load must refuse; BROKEN_* says in which way. */
#include "backends/abi/reticle_device.h"

#if defined(BROKEN_NO_SYMBOL)

RETICLE_DEVICE_EXPORT int some_other_symbol(void);
int some_other_symbol(void) { return 1; }

#elif defined(BROKEN_REFUSES)

const reticle_device_api* reticle_device_get_api(uint32_t host_abi_major, uint32_t host_abi_minor) {
  (void)host_abi_major, (void)host_abi_minor;
  return NULL;
}

#elif defined(BROKEN_OTHER_MAJOR)

const reticle_device_api* reticle_device_get_api(uint32_t host_abi_major, uint32_t host_abi_minor) {
  static const reticle_device_api api = {
      .struct_size = sizeof(api), .abi_major = 99, .abi_minor = 7};
  (void)host_abi_major, (void)host_abi_minor;
  return &api;
}

#endif
