#include "server/tenants/redis_quota.h"

#include <hiredis/hiredis.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "base/log.h"
#include "base/status.h"

namespace reticle::server::tenants {
namespace {

constexpr int64_t kHeartbeatNs = 1'000'000'000;
constexpr timeval kTimeout{0, 200'000};
// A replica that died gives its places back after this long.
constexpr int64_t kLeaseUs = 600'000'000;

// KEYS: the organisation's counts, its running requests. ARGV: four limits, four amounts, places,
// lease, its microseconds. Returns granted, the limit in the way, microseconds to wait, whether all
// places are taken and none is promised by now, four counts.
constexpr char kReserve[] = R"(
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local periods = {60e6, 86400e6, 60e6, 86400e6}
local f = redis.call('HMGET', KEYS[1], 't', 'u1', 'u2', 'u3', 'u4')
local last = tonumber(f[1] or now)
local used, kind, wait = {}, -1, 0
for i = 1, 4 do
  local limit, amount = tonumber(ARGV[i]), tonumber(ARGV[4 + i])
  used[i] = math.max(0, tonumber(f[1 + i] or 0) - limit * math.max(0, now - last) / periods[i])
  if limit > 0 and amount > 0 and wait >= 0 then
    local over = used[i] + amount - limit
    if amount > limit then
      kind, wait = i - 1, -1
    elseif over > 1e-6 and math.ceil(over * periods[i] / limit) > wait then
      kind, wait = i - 1, math.ceil(over * periods[i] / limit)
    end
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
local promised = tonumber(redis.call('HGET', KEYS[1], 'p') or 0)
local due = promised > 0 and now >= promised
local full = tonumber(ARGV[9]) > 0 and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[9]) and not due
local granted = wait == 0 and not full
if granted then
  if due then redis.call('HDEL', KEYS[1], 'p') end
  for i = 1, 4 do
    if tonumber(ARGV[i]) > 0 then used[i] = used[i] + tonumber(ARGV[4 + i]) end
  end
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[11]), ARGV[10])
end
local u = {}
for i = 1, 4 do u[i] = string.format('%.17g', used[i]) end
redis.call('HSET', KEYS[1], 't', string.format('%.0f', now), 'u1', u[1], 'u2', u[2], 'u3', u[3],
           'u4', u[4])
redis.call('PEXPIRE', KEYS[1], 90000000)
redis.call('PEXPIRE', KEYS[2], 90000000)
return {granted and 1 or 0, kind, string.format('%.0f', wait), full and 1 or 0, u[1], u[2], u[3], u[4]}
)";

// KEYS as above. ARGV: places, microseconds until one is expected to be free, the least that may be
// told. Returns the microseconds until one is promised.
constexpr char kPromise[] = R"(
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local promised = tonumber(redis.call('HGET', KEYS[1], 'p') or 0)
if promised == 0 then
  local over = math.max(0, math.min(12, redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[1])))
  promised = now + math.max(tonumber(ARGV[2]), tonumber(ARGV[3]) * 2 ^ over)
  redis.call('HSET', KEYS[1], 'p', string.format('%.0f', promised))
end
return string.format('%.0f', math.max(promised - now, 1))
)";

// KEYS as above. ARGV: four amounts to give back, lease.
constexpr char kSettle[] = R"(
for i = 1, 4 do
  local used = tonumber(redis.call('HGET', KEYS[1], 'u' .. i) or 0)
  if tonumber(ARGV[i]) > 0 then
    redis.call('HSET', KEYS[1], 'u' .. i,
               string.format('%.17g', math.max(0, used - tonumber(ARGV[i]))))
  end
end
return redis.call('ZREM', KEYS[2], ARGV[5])
)";

struct ReplyDeleter {
  void operator()(void* reply) const { freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, ReplyDeleter>;

struct Address {
  std::string host, password;
  int port = 6379;
};

absl::StatusOr<Address> ParseAddress(std::string_view text) {
  constexpr std::string_view kScheme = "redis://";
  Address address;
  if (!text.starts_with(kScheme)) {
    return InvalidArgumentError("the Redis address must be redis://HOST:PORT");
  }
  text.remove_prefix(kScheme.size());
  if (const size_t at = text.rfind('@'); at != std::string_view::npos) {
    const std::string_view user = text.substr(0, at);
    const size_t colon = user.find(':');
    if (colon == std::string_view::npos) {
      return InvalidArgumentError("the Redis address must be redis://:PASSWORD@HOST:PORT");
    }
    address.password = std::string(user.substr(colon + 1));
    text.remove_prefix(at + 1);
  }
  if (const size_t colon = text.rfind(':'); colon != std::string_view::npos) {
    const std::string_view port = text.substr(colon + 1);
    const auto parsed = std::from_chars(port.data(), port.data() + port.size(), address.port);
    if (parsed.ec != std::errc() || parsed.ptr != port.data() + port.size() || address.port < 1 ||
        address.port > 65535) {
      return InvalidArgumentError("the Redis address has no port from 1 to 65535");
    }
    text = text.substr(0, colon);
  }
  address.host = std::string(text);
  if (address.host.empty()) return InvalidArgumentError("the Redis address names no host");
  return address;
}

// A connection that is made when it is needed. Not thread-safe.
class Connection {
 public:
  explicit Connection(const Address& address) : address_(address) {}
  ~Connection() { Drop(); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Null when Redis is away or refuses.
  Reply Run(const std::vector<std::string>& words) {
    if (context_ == nullptr && !Connect()) return nullptr;
    std::vector<const char*> texts;
    std::vector<size_t> sizes;
    for (const std::string& word : words) {
      texts.push_back(word.data());
      sizes.push_back(word.size());
    }
    Reply reply(static_cast<redisReply*>(
        redisCommandArgv(context_, static_cast<int>(texts.size()), texts.data(), sizes.data())));
    if (reply == nullptr) Drop();
    return reply;
  }

  // The next command makes a new connection.
  void Drop() {
    if (context_ != nullptr) redisFree(context_);
    context_ = nullptr;
  }

  // Runs a script by its digest, or whole when Redis does not know it. `words`: keys and arguments.
  Reply RunScript(const char* script, std::string& digest, std::vector<std::string> words) {
    if (digest.empty()) {
      const Reply loaded = Run({"SCRIPT", "LOAD", script});
      if (loaded == nullptr || loaded->type != REDIS_REPLY_STRING) return nullptr;
      digest.assign(loaded->str, loaded->len);
    }
    words.insert(words.begin(), {"EVALSHA", digest, "2"});
    Reply reply = Run(words);
    if (reply != nullptr && reply->type == REDIS_REPLY_ERROR &&
        std::string_view(reply->str, reply->len).starts_with("NOSCRIPT")) {
      words[0] = "EVAL";
      words[1] = script;
      reply = Run(words);
    }
    if (reply != nullptr && reply->type == REDIS_REPLY_ERROR) {
      Drop();
      return nullptr;
    }
    return reply;
  }

 private:
  bool Connect() {
    context_ = redisConnectWithTimeout(address_.host.c_str(), address_.port, kTimeout);
    if (context_ == nullptr) return false;
    if (context_->err != 0) {
      Drop();
      return false;
    }
    redisSetTimeout(context_, kTimeout);
    if (address_.password.empty()) return true;
    const Reply reply(
        static_cast<redisReply*>(redisCommand(context_, "AUTH %s", address_.password.c_str())));
    if (reply != nullptr && reply->type != REDIS_REPLY_ERROR) return true;
    Drop();
    return false;
  }
  const Address address_;
  redisContext* context_ = nullptr;
};

std::vector<std::string> KeysOf(const std::string& organisation) {
  return {"reticle:quota:{" + organisation + "}", "reticle:running:{" + organisation + "}"};
}

double NumberOf(const redisReply& reply) {
  if (reply.type == REDIS_REPLY_INTEGER) return static_cast<double>(reply.integer);
  return reply.type == REDIS_REPLY_STRING ? std::strtod(reply.str, nullptr) : 0;
}

QuotaState StateOf(const TierLimits& limits, const redisReply& reply) {
  const auto bounds = BucketLimits(limits);
  QuotaState state;
  for (size_t i = 0; i < kBuckets; ++i) {
    if (bounds[i] == 0) continue;
    const double used = NumberOf(*reply.element[4 + i]);
    state[i].limit = bounds[i];
    state[i].remaining =
        std::max<int64_t>(bounds[i] - static_cast<int64_t>(std::ceil(used - 1e-6)), 0);
    state[i].reset_ns = static_cast<int64_t>(used * static_cast<double>(kBucketPeriodsNs[i]) /
                                             static_cast<double>(bounds[i]));
  }
  return state;
}

}  // namespace

struct RedisQuota::Impl {
  struct Settlement {
    std::string organisation, lease;
    std::array<int64_t, kBuckets> back;
  };
  struct Seen {
    QuotaState state;
    int64_t at_ns = 0;
  };

  Impl(const Address& where, std::unique_ptr<LocalQuota> fallback, Clock& time, ServerProbe& tell)
      : clock(time),
        probe(tell),
        local(std::move(fallback)),
        reserving(where),
        settling(where),
        thread([this] { Loop(); }) {}

  ~Impl() {
    {
      MutexLock lock(queue_mutex);
      stopping = true;
    }
    queue_changed.NotifyAll();
    thread.join();
  }

  void Loop();
  void SetAway(bool now_away) RETICLE_REQUIRES(mutex);
  // From when on one more of them is let in, in nanoseconds from now.
  int64_t PromisePlace(const QuotaRequest& request, int64_t wait_us, PlaceForecast forecast)
      RETICLE_REQUIRES(mutex);
  // Null, and away from now on, when Redis does not answer.
  Reply Ask(const char* script, std::string& digest, std::vector<std::string> words)
      RETICLE_REQUIRES(mutex);

  Clock& clock;
  ServerProbe& probe;
  const std::unique_ptr<LocalQuota> local;

  mutable Mutex mutex;
  Connection reserving RETICLE_GUARDED_BY(mutex);
  std::string reserve_digest RETICLE_GUARDED_BY(mutex);
  std::string promise_digest RETICLE_GUARDED_BY(mutex);
  bool away RETICLE_GUARDED_BY(mutex) = false;
  absl::flat_hash_set<std::string> local_leases RETICLE_GUARDED_BY(mutex);
  absl::flat_hash_map<std::string, Seen> seen RETICLE_GUARDED_BY(mutex);

  Connection settling;  // the thread's own
  Mutex queue_mutex;
  CondVar queue_changed;
  std::deque<Settlement> queue RETICLE_GUARDED_BY(queue_mutex);
  bool stopping RETICLE_GUARDED_BY(queue_mutex) = false;
  std::thread thread;  // last: it uses the rest
};

void RedisQuota::Impl::SetAway(bool now_away) {
  if (away == now_away) return;
  away = now_away;
  probe.OnQuotaDegraded(away);
  if (away) {
    LogWarning("quotas: Redis does not answer; this process counts by itself");
  } else {
    LogInfo("quotas: Redis answers again; quotas are shared");
  }
}

void RedisQuota::Impl::Loop() {
  std::string digest;
  int64_t heartbeat_ns = clock.NowNanos() + kHeartbeatNs;
  for (;;) {
    std::deque<Settlement> work;
    bool stop = false;
    {
      MutexLock lock(queue_mutex);
      if (queue.empty() && !stopping) queue_changed.WaitFor(queue_mutex, kHeartbeatNs);
      work.swap(queue);
      stop = stopping;
    }
    if (stop && work.empty()) return;
    if (const int64_t now_ns = clock.NowNanos(); now_ns >= heartbeat_ns) {
      heartbeat_ns = now_ns + kHeartbeatNs;
      const Reply pong = settling.Run({"PING"});
      const bool answers = pong != nullptr && pong->type != REDIS_REPLY_ERROR;
      MutexLock lock(mutex);
      // The other connection is of the time before.
      if (answers && away) reserving.Drop();
      SetAway(!answers);
    }
    for (const Settlement& settlement : work) {
      std::vector<std::string> words = KeysOf(settlement.organisation);
      for (const int64_t amount : settlement.back) words.push_back(std::to_string(amount));
      words.push_back(settlement.lease);
      // What is not told is lost: the buckets refill, and the lease runs out.
      settling.RunScript(kSettle, digest, std::move(words));
    }
    if (stop) return;
  }
}

absl::StatusOr<std::unique_ptr<RedisQuota>> RedisQuota::Open(const std::string& address,
                                                             std::unique_ptr<LocalQuota> local,
                                                             Clock& clock, ServerProbe& probe) {
  ASSIGN_OR_RETURN(const Address parsed, ParseAddress(address));
  std::unique_ptr<RedisQuota> quota(new RedisQuota);
  quota->impl_ = std::make_unique<Impl>(parsed, std::move(local), clock, probe);
  Impl& impl = *quota->impl_;
  MutexLock lock(impl.mutex);
  impl.SetAway(impl.reserving.Run({"PING"}) == nullptr);
  return quota;
}

RedisQuota::RedisQuota() = default;
RedisQuota::~RedisQuota() = default;

Reply RedisQuota::Impl::Ask(const char* script, std::string& digest,
                            std::vector<std::string> words) {
  Reply reply = reserving.RunScript(script, digest, std::move(words));
  if (reply == nullptr) SetAway(true);
  return reply;
}

int64_t RedisQuota::Impl::PromisePlace(const QuotaRequest& request, int64_t wait_us,
                                       PlaceForecast forecast) {
  const int64_t expected_us = std::max(wait_us, (forecast() + 999) / 1000);
  std::vector<std::string> words = KeysOf(request.organisation);
  for (const int64_t number : {request.limits.concurrent, expected_us, LeastPromiseNs(0) / 1000}) {
    words.push_back(std::to_string(number));
  }
  const Reply reply = Ask(kPromise, promise_digest, std::move(words));
  // Away since a moment ago: this process counts by itself, and has not counted so many.
  return reply == nullptr ? LeastPromiseNs(0) : static_cast<int64_t>(NumberOf(*reply)) * 1000;
}

QuotaDecision RedisQuota::Reserve(const QuotaRequest& request, std::string_view lease,
                                  PlaceForecast forecast) {
  MutexLock lock(impl_->mutex);
  const int64_t now_ns = impl_->clock.NowNanos();
  if (!impl_->away) {
    std::vector<std::string> words = KeysOf(request.organisation);
    for (const int64_t limit : BucketLimits(request.limits)) words.push_back(std::to_string(limit));
    for (const int64_t amount : BucketAmounts(request.requests, request.tokens)) {
      words.push_back(std::to_string(amount));
    }
    words.push_back(std::to_string(request.limits.concurrent));
    words.emplace_back(lease);
    words.push_back(std::to_string(kLeaseUs));
    const Reply reply = impl_->Ask(kReserve, impl_->reserve_digest, std::move(words));
    if (reply != nullptr && reply->type == REDIS_REPLY_ARRAY && reply->elements == 8) {
      QuotaDecision decision;
      decision.granted = NumberOf(*reply->element[0]) == 1;
      if (!decision.granted) {
        decision.kind = static_cast<QuotaKind>(static_cast<int>(NumberOf(*reply->element[1])));
        const auto wait_us = static_cast<int64_t>(NumberOf(*reply->element[2]));
        decision.retry_after_ns = wait_us < 0 ? -1 : wait_us * 1000;
        if (NumberOf(*reply->element[3]) == 1 && wait_us >= 0) {
          const int64_t place_ns = impl_->PromisePlace(request, wait_us, forecast);
          if (place_ns > decision.retry_after_ns) {
            decision.kind = QuotaKind::kConcurrent;
            decision.retry_after_ns = place_ns;
          }
        }
      }
      decision.state = StateOf(request.limits, *reply);
      impl_->seen[request.organisation] = {decision.state, now_ns};
      return decision;
    }
  }
  QuotaDecision decision = impl_->local->Reserve(request, lease, forecast);
  if (decision.granted) impl_->local_leases.emplace(lease);
  return decision;
}

void RedisQuota::Settle(const QuotaRequest& request, std::string_view lease, int64_t requests_back,
                        int64_t tokens_back) {
  {
    MutexLock lock(impl_->mutex);
    if (impl_->local_leases.erase(std::string(lease)) > 0) {
      impl_->local->Settle(request, lease, requests_back, tokens_back);
      return;
    }
  }
  MutexLock lock(impl_->queue_mutex);
  impl_->queue.push_back(
      {request.organisation, std::string(lease), BucketAmounts(requests_back, tokens_back)});
  impl_->queue_changed.NotifyOne();
}

QuotaState RedisQuota::Peek(const std::string& organisation, const TierLimits& limits) {
  MutexLock lock(impl_->mutex);
  const auto found = impl_->seen.find(organisation);
  if (impl_->away || found == impl_->seen.end()) return impl_->local->Peek(organisation, limits);
  QuotaState state = found->second.state;
  const int64_t passed_ns = impl_->clock.NowNanos() - found->second.at_ns;
  for (size_t i = 0; i < kBuckets; ++i) {
    BucketState& bucket = state[i];
    if (bucket.limit == 0) continue;
    const __int128 back = __int128{bucket.limit} * passed_ns / kBucketPeriodsNs[i];
    bucket.remaining =
        static_cast<int64_t>(std::min<__int128>(bucket.limit, __int128{bucket.remaining} + back));
    bucket.reset_ns = std::max<int64_t>(bucket.reset_ns - passed_ns, 0);
  }
  return state;
}

bool RedisQuota::degraded() const {
  MutexLock lock(impl_->mutex);
  return impl_->away;
}

}  // namespace reticle::server::tenants
