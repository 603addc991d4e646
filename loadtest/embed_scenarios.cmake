# cmake -DOUT=scenarios.cc -DFILES=a.toml;b.toml -P embed_scenarios.cmake: the files as one source.
set(entries "")
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME_WE)
  file(READ ${file} text)
  string(APPEND entries "      {\"${name}\", R\"--toml--(${text})--toml--\"},\n")
endforeach()
file(WRITE ${OUT} "#include \"loadtest/scenario.h\"

namespace reticle::loadtest {

const std::vector<BuiltInScenario>& BuiltInScenarios() {
  static const std::vector<BuiltInScenario> scenarios = {
${entries}  };
  return scenarios;
}

}  // namespace reticle::loadtest
")
