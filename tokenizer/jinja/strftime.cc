#include "tokenizer/jinja/strftime.h"

#include <time.h>

#include "base/status.h"

namespace reticle::tokenizer::jinja {
namespace {

constexpr const char* kDays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                 "Thursday", "Friday", "Saturday"};
constexpr const char* kMonths[] = {"January",   "February", "March",    "April",
                                   "May",       "June",     "July",     "August",
                                   "September", "October",  "November", "December"};

// Week of the year whose first day is `first_day` (0 Sunday, 1 Monday).
int WeekOfYear(const tm& time, int first_day) {
  return (time.tm_yday + 7 - (time.tm_wday + 7 - first_day) % 7) / 7;
}

// ISO 8601 year and week.
std::pair<int, int> IsoWeek(const tm& time) {
  const int weekday = (time.tm_wday + 6) % 7;  // Monday 0
  int year = time.tm_year + 1900;
  int week = (time.tm_yday - weekday + 10) / 7;
  const auto weeks_in = [](int y) {
    const auto last_weekday = [](int z) { return (z + z / 4 - z / 100 + z / 400) % 7; };
    return last_weekday(y) == 4 || last_weekday(y - 1) == 3 ? 53 : 52;
  };
  if (week < 1) {
    --year;
    week = weeks_in(year);
  } else if (week > weeks_in(year)) {
    ++year;
    week = 1;
  }
  return {year, week};
}

class TimeFormatter {
 public:
  explicit TimeFormatter(int64_t unix_s) : unix_s_(unix_s) {
    const time_t seconds = unix_s;
    if (gmtime_r(&seconds, &time_) == nullptr) {
      const time_t epoch = 0;
      gmtime_r(&epoch, &time_);
    }
  }

  std::string Format(std::string_view format) {
    std::string out;
    for (size_t i = 0; i < format.size(); ++i) {
      if (format[i] != '%' || i + 1 == format.size()) {
        out.push_back(format[i]);
        continue;
      }
      const size_t begin = i++;
      const bool unpadded = format[i] == '-' && i + 1 < format.size();
      if (unpadded) ++i;
      if (!Convert(format[i], unpadded, out)) out.append(format.substr(begin, i - begin + 1));
    }
    return out;
  }

 private:
  bool Convert(char conversion, bool unpadded, std::string& out) {
    const auto number = [&](int value, int width, char fill = '0') {
      std::string digits = std::to_string(value);
      if (!unpadded && digits.size() < static_cast<size_t>(width)) {
        digits.insert(0, static_cast<size_t>(width) - digits.size(), fill);
      }
      out += digits;
      return true;
    };
    const auto text = [&](std::string_view value) {
      out += value;
      return true;
    };
    const int hour12 = time_.tm_hour % 12 == 0 ? 12 : time_.tm_hour % 12;
    switch (conversion) {
      case 'Y':
        return number(time_.tm_year + 1900, 1);
      case 'C':
        return number((time_.tm_year + 1900) / 100, 2);
      case 'y':
        return number((time_.tm_year + 1900) % 100, 2);
      case 'm':
        return number(time_.tm_mon + 1, 2);
      case 'd':
        return number(time_.tm_mday, 2);
      case 'e':
        return number(time_.tm_mday, 2, ' ');
      case 'j':
        return number(time_.tm_yday + 1, 3);
      case 'H':
        return number(time_.tm_hour, 2);
      case 'I':
        return number(hour12, 2);
      case 'k':
        return number(time_.tm_hour, 2, ' ');
      case 'l':
        return number(hour12, 2, ' ');
      case 'M':
        return number(time_.tm_min, 2);
      case 'S':
        return number(time_.tm_sec, 2);
      case 'f':
        return text("000000");
      case 's':
        return text(std::to_string(unix_s_));
      case 'u':
        return number(time_.tm_wday == 0 ? 7 : time_.tm_wday, 1);
      case 'w':
        return number(time_.tm_wday, 1);
      case 'U':
        return number(WeekOfYear(time_, 0), 2);
      case 'W':
        return number(WeekOfYear(time_, 1), 2);
      case 'V':
        return number(IsoWeek(time_).second, 2);
      case 'G':
        return number(IsoWeek(time_).first, 1);
      case 'g':
        return number(IsoWeek(time_).first % 100, 2);
      case 'A':
        return text(kDays[time_.tm_wday]);
      case 'a':
        return text(std::string_view(kDays[time_.tm_wday]).substr(0, 3));
      case 'B':
        return text(kMonths[time_.tm_mon]);
      case 'b':
      case 'h':
        return text(std::string_view(kMonths[time_.tm_mon]).substr(0, 3));
      case 'p':
        return text(time_.tm_hour < 12 ? "AM" : "PM");
      case 'P':
        return text(time_.tm_hour < 12 ? "am" : "pm");
      case 'F':
        return text(Format("%Y-%m-%d"));
      case 'T':
      case 'X':
        return text(Format("%H:%M:%S"));
      case 'D':
      case 'x':
        return text(Format("%m/%d/%y"));
      case 'R':
        return text(Format("%H:%M"));
      case 'r':
        return text(Format("%I:%M:%S %p"));
      case 'c':
        return text(Format("%a %b %e %H:%M:%S %Y"));
      case 'Z':
      case 'z':
        return true;
      case 'n':
        return text("\n");
      case 't':
        return text("\t");
      case '%':
        return text("%");
      default:
        return false;
    }
  }

  const int64_t unix_s_;
  tm time_{};
};

}  // namespace

std::string FormatTime(std::string_view format, int64_t unix_s) {
  return TimeFormatter(unix_s).Format(format);
}

}  // namespace reticle::tokenizer::jinja
