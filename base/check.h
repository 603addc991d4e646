// RETICLE_CHECK(condition): aborts with the place and the condition when it is false. For our own
// bugs only, never for input. Always on, also in release builds.
#ifndef RETICLE_BASE_CHECK_H_
#define RETICLE_BASE_CHECK_H_

namespace reticle::base_internal {
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);
}  // namespace reticle::base_internal

#define RETICLE_CHECK(condition)                     \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? static_cast<void>(0)                        \
       : ::reticle::base_internal::CheckFailed(__FILE__, __LINE__, #condition))

#endif  // RETICLE_BASE_CHECK_H_
