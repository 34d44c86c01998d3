// Clocks a layer that Verilator compiled: words from files go in at full rate, what comes out goes to files.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "verilated.h"

namespace qhw {

// The ports of an AXI stream.
struct Ports {
    void* data;
    std::size_t bytes;
    CData* valid;
    CData* ready;
};

inline std::FILE* opened(const char* name, const char* mode) {
    std::FILE* file = std::fopen(name, mode);
    if (!file) {
        std::perror(name);
        std::exit(2);
    }
    return file;
}

// A file's rows hold a word each, padded to whole words of 32 bits.
inline std::size_t row_bytes(const Ports& ports) { return (ports.bytes + 3) / 4 * 4; }

class Source {
  public:
    Source(Ports ports, const char* name)
        : ports_(ports), file_(opened(name, "rb")), row_(row_bytes(ports)) {}
    void offer() {
        if ((*ports_.valid = std::fread(row_.data(), row_.size(), 1, file_) == 1))
            std::memcpy(ports_.data, row_.data(), ports_.bytes);
    }
    bool moves() const { return *ports_.valid && *ports_.ready; }

  private:
    Ports ports_;
    std::FILE* file_;
    std::vector<char> row_;
};

class Sink {
  public:
    Sink(Ports ports, const char* name, std::uint64_t expected)
        : ports_(ports), file_(opened(name, "wb")), row_(row_bytes(ports)), missing_(expected) {}
    bool moves() const { return *ports_.valid && *ports_.ready; }
    void take() {
        std::memcpy(row_.data(), ports_.data, ports_.bytes);
        std::fwrite(row_.data(), row_.size(), 1, file_);
        if (missing_) --missing_;
    }
    bool complete() const { return !missing_; }
    bool close() { return !std::fclose(file_); }

  private:
    Ports ports_;
    std::FILE* file_;
    std::vector<char> row_;
    std::uint64_t missing_;
};

constexpr int RESET_CYCLES = 16;
constexpr int CYCLES_BEHIND = 256;  // in which words too many show

// The arguments: cycles without a move, a file for each input, a file and its words for each output.
// Prints the cycles from the end of the reset to the last word that was expected; 0 where it never came.
template <typename Top>
int run(Top& top, const std::vector<Ports>& inputs, const std::vector<Ports>& outputs, char** arguments) {
    const std::uint64_t patience = std::strtoull(*++arguments, nullptr, 10);
    std::vector<Source> sources;
    std::vector<Sink> sinks;
    for (const Ports& ports : inputs) sources.emplace_back(ports, *++arguments);
    for (const Ports& ports : outputs) {
        const char* name = *++arguments;
        sinks.emplace_back(ports, name, std::strtoull(*++arguments, nullptr, 10));
        *ports.ready = 1;
    }
    const auto edge = [&top](int clock) {
        top.ap_clk = clock;
        top.eval();
    };
    top.ap_rst_n = 0;
    for (int cycle = 0; cycle < RESET_CYCLES; ++cycle) edge(0), edge(1);
    top.ap_rst_n = 1;
    for (Source& source : sources) source.offer();
    std::uint64_t cycles = 0, still = 0, last = 0;
    std::vector<Source*> moved;
    for (int behind = 0; still <= patience && behind < CYCLES_BEHIND; ++cycles) {
        edge(0);
        bool moves = false, complete = true;
        moved.clear();
        for (Source& source : sources)
            if (source.moves()) moved.push_back(&source);
        for (Sink& sink : sinks) {
            if (sink.moves()) {
                sink.take();
                moves = true;
            }
            complete = complete && sink.complete();
        }
        edge(1);
        for (Source* source : moved) source->offer();
        still = moves || !moved.empty() ? 0 : still + 1;
        if (complete && !behind++) last = cycles + 1;
    }
    std::printf("%llu\n", static_cast<unsigned long long>(last));
    for (Sink& sink : sinks)
        if (!sink.close()) return 2;
    return 0;
}

}  // namespace qhw
