// How often the C++ library draws another symbol than a given text has, as forced.mjs finds it.
//     forced FILE LINK.PARAM=NUMBER... < texts
// A text is a line: its seed, the number of its tokens, and the tokens. Prints the positions that differ, a line each.
#include <iostream>
#include "generator.hpp"

constexpr std::size_t POSITIONS = 250;  // of a call

/// Read a text from its beginning; return the first position that differs and is not known yet, or the length.
std::size_t find_difference(Generator generator, const Tokens& tokens, std::uint64_t seed, Tokens known) {
  known.push_back(tokens.size());
  std::size_t position = 0;
  for (const std::size_t end : known) {
    while (position < end) {
      const std::size_t size = std::min(POSITIONS, end - position);
      const Tokens drawn = generator.call({}, size, seed);
      const auto first = std::mismatch(drawn.begin(), drawn.end(), tokens.begin() + position).first;
      if (first != drawn.end()) return position + (first - drawn.begin());
      position += size;
    }
    if (end < tokens.size()) generator.call({tokens[position++]}, 0, seed), generator.drawn++;
  }
  return tokens.size();
}

int main(int count, char** words) try {
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1).SetLogSeverityLevel(3).AddConfigEntry("session.set_denormal_as_zero", "1");
  std::uint64_t seed;
  for (std::size_t size; std::cin >> seed >> size;) {
    Tokens tokens(size), different;
    for (auto& token : tokens) std::cin >> token;
    for (;;) {
      Generator generator(words[1], options);
      for (int index = 2; index < count; index++) {
        const std::string word = words[index], name = word.substr(0, word.find('='));
        generator.set(name, std::stod(word.substr(name.size() + 1)));
      }
      const std::size_t position = find_difference(std::move(generator), tokens, seed, different);
      if (position == size) break;
      different.push_back(position);
    }
    for (const auto position : different) std::cout << position << " ";
    std::cout << std::endl;
  }
} catch (const std::exception& error) {
  std::cerr << "forced: " << error.what() << std::endl;
  return 1;
}
