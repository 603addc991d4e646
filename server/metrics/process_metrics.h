// What the kernel says of this process.
#ifndef RETICLE_SERVER_METRICS_PROCESS_METRICS_H_
#define RETICLE_SERVER_METRICS_PROCESS_METRICS_H_

#include <cstdint>

#include "server/metrics/family_set.h"

namespace reticle::server {

// Adds process_*; `start_unix_s`: when the process began. What cannot be read is 0.
void CollectProcess(int64_t start_unix_s, FamilySet& families);

}  // namespace reticle::server

#endif  // RETICLE_SERVER_METRICS_PROCESS_METRICS_H_
