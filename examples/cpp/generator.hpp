// A generator.onnx in a session of onnxruntime. docs/deploy.md describes the inputs and outputs of the graph.
#pragma once
#include <onnxruntime_cxx_api.h>
#include <map>
#include <nlohmann/json.hpp>
#include "noise.hpp"

using Tokens = std::vector<std::int64_t>;
/// One text, which is written in calls of many positions.
struct Generator {
  std::vector<std::string> symbols;  ///< the bytes of each symbol
  std::int64_t boundary = -1;        ///< the token that ends a record; -1 in a model of one text
  std::uint64_t drawn = 0;           ///< tokens that were drawn: the position of the noise of the next one
  Generator(const std::string& path, const Ort::SessionOptions& options)
      : session(env, path.c_str(), options), binding(session) {
    if (read("gentext.format") != "4" || read("gentext.kind") != "generator") {
      throw std::runtime_error(path + ": expected a generator.onnx of format 4; export it again: gen export RUN");
    }
    for (const std::string code : nlohmann::json::parse(read("gentext.token_bytes"))) {
      std::string& symbol = symbols.emplace_back();
      for (std::size_t at = 0; at < code.size(); at += 2) symbol += char(std::stoi(code.substr(at, 2), nullptr, 16));
    }
    const auto records = nlohmann::json::parse(read("gentext.records"));
    if (!records.is_null()) boundary = records["boundary"];
    for (const auto& link : nlohmann::json::parse(read("gentext.chain"))) {
      const std::string name = link["name"];
      noise_columns.emplace_back(name, link["uniforms"]);
      for (const auto& [param, spec] : link["params"].items()) params[name + "." + param] = spec;
    }
    noise_columns.emplace_back("draw", 1);
    // The inputs without a default: states, of which `fresh` lets the graph set the first ones, and those of each call.
    for (std::size_t index = 0; index < session.GetInputCount(); index++) {
      const std::string name = session.GetInputNameAllocated(index, allocator).get();
      const auto shape = session.GetInputTypeInfo(index).GetTensorTypeAndShapeInfo().GetShape();
      const auto type = session.GetInputTypeInfo(index).GetTensorTypeAndShapeInfo().GetElementType();
      if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) feed<float>(name, shape);
      if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64) feed<std::int64_t>(name, shape);
      if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL) feed<bool>(name, shape, {true});
      if (name != "token" && name != "fresh" && name != "noise" && name != "forced") states.push_back(name);
    }
  }

  /// Set the parameter LINK.PARAM of the chain.
  void set(const std::string& name, double number) {
    const auto& spec = params[name];
    if (spec.is_null()) throw std::runtime_error(name + ": the chain has no such parameter");
    if ((spec["low"].is_number() && number < spec["low"]) || (spec["high"].is_number() && number > spec["high"])) {
      throw std::runtime_error(name + ": expected " + spec["low"].dump() + " to " + spec["high"].dump());
    }
    if (spec["dtype"] == "int64") feed<std::int64_t>(name, {1, 1}, {std::int64_t(number)});
    else feed<float>(name, {1, 1}, {float(number)});
  }

  /// Read some tokens, then draw `count` further ones. Returns those that were drawn, -1 where the text has ended;
  /// the last token of a record is the boundary.
  Tokens call(Tokens tokens, std::int64_t count, std::uint64_t seed) {
    const std::int64_t first = tokens.size(), positions = first + count;
    const auto noise = gentext::call_noise(noise_columns, seed, drawn, first, count);
    feed("noise", {positions, 1, std::int64_t(noise.size()) / positions}, noise);
    tokens.resize(positions, -1);
    feed("forced", {positions, 1}, tokens);
    binding.ClearBoundOutputs();
    binding.BindOutput("tokens", allocator.GetInfo());
    for (const auto& name : states) binding.BindOutput((name + "_out").c_str(), allocator.GetInfo());
    session.Run({}, binding);
    const auto results = binding.GetOutputValues();
    for (std::size_t at = 0; at < states.size(); at++) binding.BindInput(states[at].c_str(), results[at + 1]);
    std::copy_n(results[0].GetTensorData<std::int64_t>(), positions, tokens.begin());
    feed<std::int64_t>("token", {1}, {std::max<std::int64_t>(0, tokens.back())});
    feed<bool>("fresh", {1});
    drawn += count;
    return {tokens.begin() + first, tokens.end()};
  }

  Ort::AllocatorWithDefaultOptions allocator;
  Ort::Env env{ORT_LOGGING_LEVEL_ERROR};
  Ort::Session session;
  Ort::IoBinding binding;
  std::map<std::string, nlohmann::json> params;
  std::vector<std::string> states;
  std::vector<std::pair<std::string, std::size_t>> noise_columns;  ///< who takes noise, and how many numbers

  std::string read(const char* key) {
    const auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated(key, allocator);
    return text ? text.get() : "";
  }

  /// Bind an input: sizes below 0 are 1, and elements that are left out are 0.
  template <typename Element>
  void feed(const std::string& name, std::vector<std::int64_t> shape, std::vector<Element> elements = {}) {
    for (auto& size : shape) size = std::abs(size);
    auto tensor = Ort::Value::CreateTensor<Element>(allocator, shape.data(), shape.size());
    elements.resize(tensor.GetTensorTypeAndShapeInfo().GetElementCount());
    std::copy(elements.begin(), elements.end(), tensor.template GetTensorMutableData<Element>());
    binding.BindInput(name.c_str(), tensor);
  }
};
