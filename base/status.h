// Status helpers that Debian's Abseil (20220623) lacks: formatted constructors and the two macros.
//
// InvalidArgumentError("max_tokens is %d; it must be at least 1", n) and its siblings build an
// absl::Status whose message is formatted as by absl::StrFormat; std::string_view arguments are
// fine with %s. A message names the field, the value and the limit.
#ifndef RETICLE_BASE_STATUS_H_
#define RETICLE_BASE_STATUS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"

namespace reticle {

#define RETICLE_DEFINE_STATUS_FORMATTER(Name)                                       \
  template <typename... Args>                                                       \
  absl::Status Name(const absl::FormatSpec<Args...>& format, const Args&... args) { \
    return absl::Name(absl::StrFormat(format, args...));                            \
  }

RETICLE_DEFINE_STATUS_FORMATTER(InvalidArgumentError)
RETICLE_DEFINE_STATUS_FORMATTER(NotFoundError)
RETICLE_DEFINE_STATUS_FORMATTER(AlreadyExistsError)
RETICLE_DEFINE_STATUS_FORMATTER(ResourceExhaustedError)
RETICLE_DEFINE_STATUS_FORMATTER(FailedPreconditionError)
RETICLE_DEFINE_STATUS_FORMATTER(OutOfRangeError)
RETICLE_DEFINE_STATUS_FORMATTER(UnimplementedError)
RETICLE_DEFINE_STATUS_FORMATTER(InternalError)
RETICLE_DEFINE_STATUS_FORMATTER(UnavailableError)
RETICLE_DEFINE_STATUS_FORMATTER(DataLossError)
RETICLE_DEFINE_STATUS_FORMATTER(DeadlineExceededError)
RETICLE_DEFINE_STATUS_FORMATTER(CancelledError)
RETICLE_DEFINE_STATUS_FORMATTER(UnauthenticatedError)
RETICLE_DEFINE_STATUS_FORMATTER(PermissionDeniedError)

#undef RETICLE_DEFINE_STATUS_FORMATTER

}  // namespace reticle

#define RETICLE_CONCAT_INNER_(a, b) a##b
#define RETICLE_CONCAT_(a, b) RETICLE_CONCAT_INNER_(a, b)

// Returns from the enclosing function if `expr` (an absl::Status) is not OK.
#define RETURN_IF_ERROR(expr)              \
  do {                                     \
    absl::Status reticle_status_ = (expr); \
    if (!reticle_status_.ok()) {           \
      return reticle_status_;              \
    }                                      \
  } while (false)

// Evaluates `expr` (an absl::StatusOr<T>); returns its status if not OK, else assigns the value to
// `lhs`, which may declare a variable.
#define ASSIGN_OR_RETURN(lhs, expr) \
  RETICLE_ASSIGN_OR_RETURN_IMPL_(RETICLE_CONCAT_(reticle_statusor_, __LINE__), lhs, expr)
#define RETICLE_ASSIGN_OR_RETURN_IMPL_(statusor, lhs, expr) \
  auto statusor = (expr);                                   \
  if (!statusor.ok()) {                                     \
    return std::move(statusor).status();                    \
  }                                                         \
  lhs = *std::move(statusor)

#endif  // RETICLE_BASE_STATUS_H_
