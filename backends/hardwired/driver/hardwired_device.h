// The driver of the emulated card behind the C device ABI ("hardwired").
//
// reticle_device_config.model_path names the device image (*.rom); content=replay needs none.
// context_limit and max_sequences may be smaller than the profile's and the image's. Options
//   profile         a built-in profile or the path of a TOML file; default taalas-hc1
//   content         functional (default): the image's real tokens. replay: plays token ids, at a
//                   cost of well below 0.2 us each
//   clock           wall (default) or virtual: simulated time, which jumps to the next event
//   virtual_clock   clock=virtual: the name of a VirtualClock that the device follows; empty: its
//                   own time, advanced by a poll that finds nothing due
//   card            where the firmware runs. inline: in the host's calls (default for replay and
//                   for clock=virtual); thread: in a thread of this process (default for
//                   functional); process: the driver starts card_program and restarts it after a
//                   crash; socket: a card process that somebody started, at card_socket
//   card_program    default: this program (its subcommand `card`)
//   card_socket     card=socket: path of the card's socket
//   compute         card for functional content: image (default), or synthetic: a tiny made-up
//                   model without a file, for tests
//   vocab           vocabulary of replay and of the synthetic model; default 256
//   replay_ids      token ids to play, such as 5,6,7
//   replay_file     a file of token ids, separated by white space
//   replay_tokens   tokens of one answer, then a stop id if the sequence has one; default 0: no end
//   replay_kv_bytes KV memory that a token takes in the model that replay stands for, such as
//                   65536; default 0: memory sets no limit
//   params          content=replay: strict (default) offers temperature only and refuses what
//                   replay cannot honour; ignore: takes every parameter and plays on
//   sampling        profile (default): the host samples what is beyond the device's sampler if the
//                   profile allows it; strict: as the device alone, so top_k 1 .. max_top_k
//   watchdog_ms     a card that owes work and shows no heartbeat for this long is lost; default
//                   1000
//   scrub_ms        how often the image's seal is checked again; default 10000, 0: at open only
//   fault_file      a watched file of faults, one "DEVICE FAULT" a line ("* hang", "2 slow=4"); it
//                   is read when it changes
//   name            for InjectFault; default "card<device_index>"
//   timing.*, limits.*, power.* ...   replace a number of the profile, such as
//                   timing.pipeline_depth=4 (KeyInfos() has the names)
#ifndef RETICLE_BACKENDS_HARDWIRED_DRIVER_HARDWIRED_DEVICE_H_
#define RETICLE_BACKENDS_HARDWIRED_DRIVER_HARDWIRED_DEVICE_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "backends/abi/reticle_device.h"
#include "backends/hardwired/card/fault.h"

namespace reticle::backends::hardwired {

// The driver "hardwired". Static.
const reticle_device_api* HardwiredDeviceApi();

// Injects a fault into the open device that has this name, or index. At once; the card notices at
// its next step. NOT_FOUND when there is none. Any thread.
absl::Status InjectFault(std::string_view name, const FaultSpec& fault);
absl::Status InjectFault(uint32_t device_index, const FaultSpec& fault);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_DRIVER_HARDWIRED_DEVICE_H_
