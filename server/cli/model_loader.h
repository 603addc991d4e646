// From options to a served model: file, tokenizer, template, device and engine.
#ifndef RETICLE_SERVER_CLI_MODEL_LOADER_H_
#define RETICLE_SERVER_CLI_MODEL_LOADER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/abi/device.h"
#include "base/clock.h"
#include "scheduler/engine.h"
#include "scheduler/engine_probe.h"
#include "scheduler/engine_thread.h"
#include "server/cli/serve_options.h"
#include "server/core/engine_task.h"
#include "server/core/model.h"

namespace reticle::server::cli {

// A driver that is linked into the binary.
struct BuiltInDriver {
  std::string name;
  const reticle_device_api* api = nullptr;
};

// A model entry whose engine runs. The entry must not be used after this is gone: that stops the
// engine's thread.
class LoadedModel {
 public:
  // Errors name the file, option or device at fault. `clock` and `probe` (may be null) must outlive
  // the model. A device that is cheap to poll is driven by a loop of `loops`, unless that is null
  // or the options ask for a thread; the host must be gone or stopped before the model goes.
  static absl::StatusOr<std::unique_ptr<LoadedModel>> Load(
      const ServeOptions& options, const std::vector<BuiltInDriver>& drivers, Clock& clock,
      scheduler::EngineProbe* probe, LoopHost* loops);
  ~LoadedModel();

  const std::shared_ptr<const ModelEntry>& entry() const { return entry_; }
  scheduler::Engine& engine() { return *engine_; }
  // One line for people: model, device, context, KV memory.
  std::string Describe() const;

 private:
  LoadedModel();

  std::unique_ptr<scheduler::Engine> engine_;
  // One of them steps it.
  std::unique_ptr<scheduler::EngineThread> thread_;
  std::unique_ptr<EngineTask> task_;
  std::shared_ptr<const ModelEntry> entry_;
};

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_MODEL_LOADER_H_
