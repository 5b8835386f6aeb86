// Writes what gen sample writes: write FILE [--prime TEXT] [--seed N] [--length N] [--stop TEXT] [--set LINK.PARAM=N]
#include <iostream>
#include "generator.hpp"

/// The tokens of a text, of which each part must be a symbol.
Tokens encode(const std::string& text, const std::vector<std::string>& symbols) {
  Tokens tokens;
  for (std::size_t at = 0; at < text.size(); at += symbols[tokens.back()].size()) {
    const auto begins = [&](const std::string& symbol) { return symbol.size() && text.substr(at).starts_with(symbol); };
    tokens.push_back(std::ranges::find_if(symbols, begins) - symbols.begin());
    if (tokens.back() == std::ssize(symbols)) throw std::runtime_error("--prime: no symbol for " + text.substr(at, 4));
  }
  return tokens;
}

int main(int count, char** words) try {
  const std::string version = OrtGetApiBase()->GetVersionString();
  if (std::stoi(version.substr(2)) < 21) throw std::runtime_error("onnxruntime " + version + " is too old; take 1.21");
  if (count % 2) throw std::runtime_error("expected FILE, and options with a value each");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1).SetLogSeverityLevel(3).AddConfigEntry("session.set_denormal_as_zero", "1");
  options.DisableCpuMemArena();  // malloc is faster for the small tensors of one row
  Generator generator(words[1], options);
  std::map<std::string, std::string> settings{{"--seed", "1"}, {"--length", "500"}, {"--prime", ""}, {"--stop", ""}};
  for (int index = 2; index < count; index += 2) {
    const std::string name = words[index], setting = words[index + 1], param = setting.substr(0, setting.find('='));
    if (name == "--set" && param != setting) generator.set(param, std::stod(setting.substr(param.size() + 1)));
    else if (settings.contains(name)) settings[name] = setting;
    else throw std::runtime_error(name + " " + setting + ": no such option");
  }
  std::string text = settings["--prime"], stop = settings["--stop"];
  Tokens prime = encode(text, generator.symbols);
  std::cout << text;
  const std::uint64_t seed = std::stoull(settings["--seed"]);
  std::size_t shown = text.size(), left = std::stoull(settings["--length"]), size = 1;
  for (bool is_running = true; is_running; size = std::min<std::size_t>(4 * size, 64)) {  // the first ones come at once
    for (auto token : generator.call(std::exchange(prime, {}), std::min(size, left + 1), seed)) {
      for (char byte : token < 0 ? "" : generator.symbols[token]) {
        if ((byte & 0xC0) != 0x80) is_running &= left-- > 0;  // it begins a character
        if (!is_running) break;
        text += byte;
        is_running = stop.empty() || !text.ends_with(stop);
      }
      is_running &= token >= 0 && token != generator.boundary;
      if (!is_running) break;
    }
    if (!stop.empty() && text.ends_with(stop)) text.resize(std::max(shown, text.size() - stop.size()));
    std::size_t pending = is_running ? std::min(stop.size(), text.size() - shown) : 0;  // it may become the stop string
    while (!stop.starts_with(text.substr(text.size() - pending))) pending--;
    std::cout << text.substr(shown, text.size() - pending - shown) << std::flush;
    shown = text.size() - pending;
  }
  std::cout << std::endl;
} catch (const std::exception& error) {
  std::cerr << "write: " << error.what() << std::endl;
  return 1;
}
