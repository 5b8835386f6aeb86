// The uniform random numbers from which tokens are drawn. docs/formats.md, "Noise", describes them, with test vectors.
//
// Philox4x64-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; SHA-256 of FIPS 180-4.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <vector>

namespace gentext {

using Block = std::array<std::uint64_t, 4>;

/// The high 64 bits of a product, from products of halves: standard C++ has no type of 128 bits.
inline std::uint64_t multiply_high(std::uint64_t one, std::uint64_t other) {
  const std::uint64_t one_low = one & 0xFFFFFFFF, one_high = one >> 32;
  const std::uint64_t other_low = other & 0xFFFFFFFF, other_high = other >> 32;
  const std::uint64_t middle = one_high * other_low + (one_low * other_low >> 32);
  const std::uint64_t carry = one_low * other_high + (middle & 0xFFFFFFFF);
  return one_high * other_high + (middle >> 32) + (carry >> 32);
}

/// One block of noise for a counter of four words, the lowest first, and a key of two.
inline Block philox(Block counter, std::array<std::uint64_t, 2> key) {
  constexpr std::uint64_t multiplier[] = {0xD2E7470EE14C6C93, 0xCA5A826395121157};
  for (int round = 0; round < 10; round++) {
    const auto [first, second, third, fourth] = counter;
    counter = {multiply_high(multiplier[1], third) ^ second ^ key[0], multiplier[1] * third,
               multiply_high(multiplier[0], first) ^ fourth ^ key[1], multiplier[0] * first};
    key = {key[0] + 0x9E3779B97F4A7C15, key[1] + 0xBB67AE8584CAA73B};
  }
  return counter;
}

/// The first eight words of the SHA-256 of a text that is shorter than 56 bytes, as names of links are.
inline std::array<std::uint32_t, 8> sha256(const std::string& text) {
  static constexpr std::uint32_t constants[64] = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
  std::array<std::uint32_t, 64> schedule{};
  for (std::size_t index = 0; index <= text.size(); index++) {
    const std::uint32_t byte = index < text.size() ? static_cast<unsigned char>(text[index]) : 0x80;
    schedule[index / 4] |= byte << (24 - 8 * (index % 4));
  }
  schedule[15] = static_cast<std::uint32_t>(8 * text.size());
  for (int round = 16; round < 64; round++) {
    const std::uint32_t early = schedule[round - 15], late = schedule[round - 2];
    schedule[round] = schedule[round - 16] + schedule[round - 7] +
                      (std::rotr(early, 7) ^ std::rotr(early, 18) ^ (early >> 3)) +
                      (std::rotr(late, 17) ^ std::rotr(late, 19) ^ (late >> 10));
  }
  const std::array<std::uint32_t, 8> start = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                              0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  auto hash = start;
  for (int round = 0; round < 64; round++) {
    const auto [a, b, c, d, e, f, g, h] = hash;
    const std::uint32_t first = h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & f) ^ (~e & g)) +
                                constants[round] + schedule[round];
    const std::uint32_t second =
        (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    hash = {first + second, a, b, c, d + first, e, f, g};
  }
  for (int word = 0; word < 8; word++) hash[word] += start[word];
  return hash;
}

/// The counter word that belongs to a link's name: the first eight bytes of its SHA-256, little-endian.
inline std::uint64_t counter_plane(const std::string& name) {
  const auto hash = sha256(name);
  std::uint64_t plane = 0;
  for (int byte = 7; byte >= 0; byte--) plane = plane << 8 | (hash[byte / 4] >> (24 - 8 * (byte % 4)) & 0xFF);
  return plane;
}

/// `count * columns` numbers in [0, 1) of a link, or of "draw", from a position on; those of a position side by side.
inline std::vector<float> uniforms(std::uint64_t seed, std::uint64_t stream, const std::string& name,
                                   std::uint64_t position, std::size_t count, std::size_t columns = 1) {
  const std::uint64_t plane = counter_plane(name);
  std::vector<float> numbers(count * columns);
  Block words{};
  for (std::size_t offset = 0; offset < numbers.size(); offset++) {
    const std::uint64_t index = position * columns + offset;
    if (!offset || index % 4 == 0) words = philox({index / 4 + 1, 0, plane, 0}, {seed, stream});
    numbers[offset] = static_cast<float>(words[index % 4] >> 40) * 0x1p-24f;
  }
  return numbers;
}

/// The noise of a call: for each position the numbers of all who take some, in order. The first positions read tokens.
inline std::vector<float> call_noise(const std::vector<std::pair<std::string, std::size_t>>& columns_by_name,
                                     std::uint64_t seed, std::uint64_t drawn, std::size_t first, std::size_t count,
                                     std::uint64_t stream = 0) {
  std::vector<float> noise;  // that of tokens that are read is not used
  for (std::size_t position = 0; position < first + count; position++) {
    for (const auto& [name, columns] : columns_by_name) {
      const std::uint64_t drawn_position = position < first ? 0 : drawn + position - first;
      for (float number : uniforms(seed, stream, name, drawn_position, 1, columns)) noise.push_back(number);
    }
  }
  return noise;
}

}  // namespace gentext
