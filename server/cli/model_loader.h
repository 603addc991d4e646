// From options to a served model: file, tokenizer, template, devices, adapters.
#ifndef RETICLE_SERVER_CLI_MODEL_LOADER_H_
#define RETICLE_SERVER_CLI_MODEL_LOADER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "scheduler/engine_probe.h"
#include "server/cli/device_choice.h"
#include "server/cli/device_group.h"
#include "server/cli/model_source.h"
#include "server/cli/serve_options.h"
#include "server/core/loop_task.h"
#include "server/core/model.h"

namespace reticle::server::cli {

// One model on one or more groups of devices, each with its own entry in the registry: the first
// group's is the model's id (with "id@device" as an alias), the others' are "id@device". Adapters
// are entries of their own, named likewise.
class LoadedModel {
 public:
  // Opens everything and adds the entries to `registry`, in the order of the groups. Errors name
  // the file, option or device at fault. `clock`, `registry` and what `add_engine` makes (one probe
  // a card; may be empty) must outlive the model, and nobody may use its entries when it is gone.
  // Devices that are cheap to poll are driven by the loops of `loops`, unless that is null or the
  // options ask for threads; that host must be gone or stopped before the model goes.
  static absl::StatusOr<std::unique_ptr<LoadedModel>> Load(
      const ServeOptions& options, const std::vector<DeviceChoice>& choices, Clock& clock,
      const std::function<scheduler::EngineProbe*()>& add_engine, ModelRegistry& registry,
      LoopHost* loops);
  ~LoadedModel();

  const std::string& id() const { return id_; }
  const std::vector<std::unique_ptr<DeviceGroup>>& groups() const { return groups_; }
  // What requests call the model on that group.
  std::string IdOn(size_t group) const { return NameOn(id_, group); }
  // Whether any device works.
  bool Works() const;
  // For people, one line for each group: model, devices, context, KV memory.
  std::string Describe() const;

  struct Adapter {
    std::string name;
    std::string path;
    float scale = 1;
    uint64_t id = 0;
  };
  // Thread-safe, one at a time; each waits for the devices. Load: ALREADY_EXISTS, INVALID_ARGUMENT,
  // what the devices say. Unload: NOT_FOUND; FAILED_PRECONDITION while a request uses it.
  absl::Status LoadAdapter(const std::string& name, const std::string& path, float scale);
  absl::Status UnloadAdapter(const std::string& name);
  std::vector<Adapter> adapters() const;
  // Names of those that the engine's device can apply without a swap, with commas between.
  std::string AdaptersOn(const scheduler::Engine& engine) const;

 private:
  LoadedModel(std::string id, ModelRegistry& registry) : id_(std::move(id)), registry_(registry) {}
  std::string NameOn(const std::string& name, size_t group) const;
  std::shared_ptr<ModelEntry> NewEntry(size_t group) const;
  absl::Status AddEntries(const Adapter* adapter);
  void RemoveEntries(const std::string& name);
  absl::Status Begin(const ServeOptions& options, LoopHost* loops);

  const std::string id_;
  ModelRegistry& registry_;
  std::unique_ptr<ModelSource> source_;
  ModelEntry common_;  // tokenizer, template and what else all entries share
  std::vector<std::unique_ptr<DeviceGroup>> groups_;
  mutable Mutex mutex_;
  std::vector<Adapter> adapters_ RETICLE_GUARDED_BY(mutex_);
  uint64_t next_adapter_ RETICLE_GUARDED_BY(mutex_) = 1;
};

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_MODEL_LOADER_H_
