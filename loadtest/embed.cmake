# cmake -DOUT=embedded.cc -DFILES=a.toml;b.html -P embed.cmake: the files as one source. A literal may
# not be longer than 64 KiB by the standard, so texts are cut into several.
set(entries "")
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME)
  file(READ ${file} text)
  string(LENGTH "${text}" length)
  string(APPEND entries "      {\"${name}\",\n")
  set(at 0)
  while(at LESS length)
    string(SUBSTRING "${text}" ${at} 4000 part)
    string(APPEND entries "       R\"--embed--(${part})--embed--\"\n")
    math(EXPR at "${at} + 4000")
  endwhile()
  string(APPEND entries "      },\n")
endforeach()
file(WRITE ${OUT} "#include \"loadtest/embedded_files.h\"

namespace reticle::loadtest {

const std::vector<EmbeddedFile>& EmbeddedFiles() {
  static const std::vector<EmbeddedFile> files = {
${entries}  };
  return files;
}

}  // namespace reticle::loadtest
")
