#include "server/core/model.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "server/core/error.h"

namespace reticle::server {
namespace {

bool Answers(const ModelEntry& model, std::string_view name) {
  return model.id == name || (!name.empty() && model.unlisted_alias == name) ||
         std::ranges::find(model.aliases, name) != model.aliases.end();
}

}  // namespace

absl::Status ModelRegistry::Add(std::shared_ptr<const ModelEntry> model) {
  MutexLock lock(mutex_);
  for (const auto& present : models_) {
    if (Answers(*present, model->id)) {
      return AlreadyExistsError("model id \"%s\" is already served", model->id);
    }
    for (const std::string& alias : model->aliases) {
      if (Answers(*present, alias)) {
        return AlreadyExistsError("model alias \"%s\" is already served", alias);
      }
    }
    if (Answers(*present, model->unlisted_alias)) {
      return AlreadyExistsError("model alias \"%s\" is already served", model->unlisted_alias);
    }
  }
  models_.push_back(std::move(model));
  return absl::OkStatus();
}

void ModelRegistry::Remove(std::string_view id) {
  MutexLock lock(mutex_);
  std::erase_if(models_, [&](const auto& model) { return model->id == id; });
}

absl::StatusOr<std::shared_ptr<const ModelEntry>> ModelRegistry::Find(std::string_view name) const {
  MutexLock lock(mutex_);
  if (models_.empty()) return UnavailableError("the model is still loading");
  if (name.empty()) return models_.front();
  for (const auto& model : models_) {
    if (Answers(*model, name)) return model;
  }
  return WithCode(WithParam(NotFoundError("The model `%s` does not exist; this server has `%s`",
                                          name.substr(0, 200), models_.front()->id),
                            "model"),
                  "model_not_found");
}

std::vector<std::shared_ptr<const ModelEntry>> ModelRegistry::List() const {
  MutexLock lock(mutex_);
  return models_;
}

}  // namespace reticle::server
