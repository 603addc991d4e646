// The cards of one `--device`: engines that serve the same model image behind one dispatcher.
#ifndef RETICLE_SERVER_CLI_DEVICE_GROUP_H_
#define RETICLE_SERVER_CLI_DEVICE_GROUP_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backends/abi/device.h"
#include "base/clock.h"
#include "scheduler/dispatcher.h"
#include "scheduler/engine.h"
#include "scheduler/engine_probe.h"
#include "scheduler/engine_thread.h"
#include "server/cli/device_choice.h"
#include "server/core/engine_task.h"
#include "server/core/loop_task.h"
#include "server/core/model.h"

namespace reticle::server::cli {

// One card with its engine.
struct Card {
  uint32_t index = 0;
  std::string name;                         // for fault injection: "taalas-hc1/0"
  scheduler::EngineProbe* probe = nullptr;  // may be null
  std::unique_ptr<scheduler::Engine> engine;
};

class DeviceGroup {
 public:
  struct Options {
    DeviceChoice choice;
    backends::DeviceConfig config;  // of the first card; the others count on from its index
    uint32_t cards = 1;
    scheduler::EngineOptions engine;
  };

  // Opens the cards. Errors name the card at fault. `clock` must outlive the group, and so must the
  // probes that `add_engine` (may be empty) makes, one for each card.
  static absl::StatusOr<std::unique_ptr<DeviceGroup>> Open(
      const Options& options, Clock& clock,
      const std::function<scheduler::EngineProbe*()>& add_engine);
  // Stops the engines' threads. Loops that step engines must be gone by then, or Stop was called.
  ~DeviceGroup();

  // From now on the engines are stepped: those whose devices are cheap to poll by the loops of
  // `loops` (null: none), the others by a thread each.
  absl::Status Start(LoopHost* loops);
  // Takes the engines back from threads and loops, which still run.
  void Stop();

  const std::string& name() const { return choice_.name; }
  const DeviceChoice& choice() const { return choice_; }
  scheduler::Dispatcher& dispatcher() { return *dispatcher_; }
  const scheduler::Dispatcher& dispatcher() const { return *dispatcher_; }
  const std::vector<Card>& cards() const { return cards_; }

  // On all cards or on none; waits for them.
  absl::Status LoadAdapter(uint64_t adapter, const std::string& path, float scale);
  // FAILED_PRECONDITION while a sequence uses it.
  absl::Status UnloadAdapter(uint64_t adapter);
  absl::Status Inject(const Card& card, std::string_view fault) const;

 private:
  DeviceGroup(DeviceChoice choice, Clock& clock) : choice_(std::move(choice)), clock_(clock) {}

  const DeviceChoice choice_;
  Clock& clock_;
  std::vector<Card> cards_;
  std::unique_ptr<scheduler::Dispatcher> dispatcher_;
  std::vector<std::unique_ptr<scheduler::EngineThread>> threads_;
  LoopHost* loops_ = nullptr;
  std::vector<std::unique_ptr<EngineTask>> tasks_;
};

// What the devices of a group offer to requests of a model with this tokenizer.
ModelLimits LimitsOf(const reticle_capabilities& device, uint32_t tokenizer_vocab);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_DEVICE_GROUP_H_
