#include "base/check.h"
#include "loadtest/embedded_files.h"
#include "loadtest/report.h"

namespace reticle::loadtest {

std::string FormatPage(const Report& report) {
  constexpr std::string_view kPlace = "@RESULT@";
  std::string_view page;
  for (const EmbeddedFile& file : EmbeddedFiles()) {
    if (file.name == "report_page.html") page = file.text;
  }
  const size_t at = page.find(kPlace);
  RETICLE_CHECK(at != std::string_view::npos);
  std::string out(page.substr(0, at));
  // Nothing inside the JSON may end the script element.
  for (const char c : FormatJson(report)) {
    if (c == '<') {
      out.append("\\u003c");
    } else {
      out.push_back(c);
    }
  }
  out.append(page.substr(at + kPlace.size()));
  return out;
}

}  // namespace reticle::loadtest
