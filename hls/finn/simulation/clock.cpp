// Clocks layers that are connected by queues; words come from files, and go to files.
//
// A file holds a row for each word, padded to whole words of 32 bits. Standard input says what there is;
// layers are numbered in their order:
//   verilog LIBRARY FOLDER                       a layer that Verilator compiled; memory images lie in FOLDER
//   replay FOLDER INPUTS OUTPUTS PACE            a layer of which the order of words is known (see Replay)
//   source FILE BITS LAYER PORT IMAGE INTERVAL   words for an input, IMAGE of them every INTERVAL cycles
//   sink FILE LAYER PORT WORDS IMAGE             where an output goes, and how many words are expected
//   queue LAYER PORT BITS LAYER PORT BITS DEPTH  an output to an input, DEPTH words of the output at most
//   patience CYCLES                              how long nothing may move
//
// Prints "image CYCLE" for the last word of each image at the first sink, counted from the end of the reset;
// "queue MOST NOW" for each queue: the most words that it held, and those that it holds at the end.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "layer.hpp"
#include "verilated.h"

namespace {

using Row = std::vector<std::uint32_t>;
using Count = std::uint64_t;

constexpr int RESET_CYCLES = 16;
constexpr int CYCLES_BEHIND = 256;  // in which words too many show

std::size_t row_words(unsigned bits) { return (bits + 31) / 32; }

[[noreturn]] void fail(const std::string& what) {
    std::cerr << "error: " << what << '\n';
    std::exit(2);
}

std::FILE* opened(const std::string& name, const char* mode) {
    std::FILE* file = std::fopen(name.c_str(), mode);
    if (!file) fail("no file " + name);
    return file;
}

bool read_row(std::FILE* file, Row& row) {
    return std::fread(row.data(), sizeof(row[0]), row.size(), file) == row.size();
}

void write_row(std::FILE* file, const Row& row) { std::fwrite(row.data(), sizeof(row[0]), row.size(), file); }

// What an input takes words from. Nothing changes before taken(), which ends a cycle.
struct Giver {
    virtual ~Giver() = default;
    virtual bool offers(Count cycle) = 0;
    virtual const Row& word() const = 0;
    virtual void taken() = 0;
};

// What an output gives words to. Nothing changes before give(), which ends a cycle.
struct Taker {
    virtual ~Taker() = default;
    virtual bool takes() const = 0;
    virtual void give(const Row& word, Count cycle) = 0;
};

class Source : public Giver {
  public:
    Source(const std::string& file, unsigned bits, Count image, Count interval)
        : file_(opened(file, "rb")), row_(row_words(bits)), image_(image), interval_(interval) {
        has_ = read_row(file_, row_);
    }
    bool offers(Count cycle) override { return has_ && cycle >= index_ / image_ * interval_; }
    const Row& word() const override { return row_; }
    void taken() override {
        ++index_;
        has_ = read_row(file_, row_);
    }

  private:
    std::FILE* file_;
    Row row_;
    Count image_, interval_, index_ = 0;
    bool has_;
};

class Sink : public Taker {
  public:
    Sink(const std::string& file, Count words, Count image)
        : file_(opened(file, "wb")), words_(words), image_(image) {}
    bool takes() const override { return true; }
    void give(const Row& word, Count cycle) override {
        write_row(file_, word);
        if (++seen_ <= words_ && seen_ % image_ == 0) images_.push_back(cycle + 1);
    }
    bool complete() const { return seen_ >= words_; }
    const std::vector<Count>& images() const { return images_; }
    void close() {
        if (std::fclose(file_)) fail("a file could not be written");
    }

  private:
    std::FILE* file_;
    Count words_, image_, seen_ = 0;
    std::vector<Count> images_;
};

// A queue. Where its ends have words of different widths, a converter lies in the middle of it, which takes a
// word and gives a word in every cycle at most.
class Queue : public Taker, public Giver {
  public:
    Queue(unsigned from, unsigned to, Count depth) : from_(from), to_(to), depth_(depth) {}
    bool takes() const override { return held() < depth_; }
    void give(const Row& word, Count) override { arrived_ = word; }
    bool offers(Count) override { return !ready_.empty(); }
    const Row& word() const override { return ready_.front(); }
    void taken() override { left_ = true; }
    void end_cycle() {
        if (left_) ready_.pop_front();
        if (from_ != to_) convert();
        if (!arrived_.empty()) (from_ == to_ ? ready_ : waiting_).push_back(std::move(arrived_));
        arrived_.clear();
        left_ = false;
        most_ = std::max(most_, held());
    }
    Count most() const { return most_; }
    // In words of the output, those that were converted among them.
    Count held() const { return waiting_.size() + (bits_.size() + ready_.size() * to_ + from_ - 1) / from_; }

  private:
    void convert() {
        if (bits_.size() < to_ && !waiting_.empty()) {
            const Row& word = waiting_.front();
            for (unsigned bit = 0; bit < from_; ++bit) bits_.push_back(word[bit / 32] >> bit % 32 & 1);
            waiting_.pop_front();
        }
        if (bits_.size() < to_) return;
        Row word(row_words(to_));
        for (unsigned bit = 0; bit < to_; ++bit) word[bit / 32] |= std::uint32_t(bits_[bit]) << bit % 32;
        bits_.erase(bits_.begin(), bits_.begin() + to_);
        ready_.push_back(std::move(word));
    }
    unsigned from_, to_;
    Count depth_, most_ = 0;
    std::deque<Row> waiting_, ready_;
    std::deque<bool> bits_;
    Row arrived_;
    bool left_ = false;
};

struct Block {
    std::vector<Giver*> givers;
    std::vector<Taker*> takers;
    virtual ~Block() = default;
    virtual void drive(Count cycle) = 0;         // before the clock's edge
    virtual bool sample(Count cycle) = 0;        // what moves, at the edge
    virtual void end_cycle(Count cycle) = 0;     // what has moved
    virtual void connected() = 0;
};

class Verilog : public Block {
  public:
    Verilog(const std::string& library, const std::string& folder) {
        void* handle = dlopen(("./" + library).c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!handle) fail(dlerror());
        const auto make = reinterpret_cast<qhw::Layer* (*)()>(dlsym(handle, "make_layer"));
        if (!make) fail(dlerror());
        const int here = chdir(folder.c_str());  // memory images are read when a layer is evaluated first
        layer_.reset(make());
        for (const qhw::Ports& ports : layer_->inputs) *ports.valid = 0;
        for (const qhw::Ports& ports : layer_->outputs) *ports.ready = 0;
        for (int half = 0; half < 2 * RESET_CYCLES; ++half) layer_->eval(half % 2, false);
        if (here || chdir("..")) fail("no folder " + folder);
    }
    void connected() override {
        if (givers.size() != layer_->inputs.size() || takers.size() != layer_->outputs.size())
            fail("a layer has streams that are not connected");
        words_.resize(takers.size());
    }
    void drive(Count cycle) override {
        for (std::size_t i = 0; i < givers.size(); ++i) {
            const qhw::Ports& ports = layer_->inputs[i];
            *ports.valid = givers[i]->offers(cycle);
            if (*ports.valid) std::memcpy(ports.data, givers[i]->word().data(), ports.bytes);
        }
        for (std::size_t i = 0; i < takers.size(); ++i) *layer_->outputs[i].ready = takers[i]->takes();
        layer_->eval(false, true);
    }
    bool sample(Count) override {
        bool moves = false;
        taken_.clear();
        for (std::size_t i = 0; i < givers.size(); ++i)
            if (*layer_->inputs[i].valid && *layer_->inputs[i].ready) taken_.push_back(givers[i]);
        for (std::size_t i = 0; i < takers.size(); ++i) {
            const qhw::Ports& ports = layer_->outputs[i];
            words_[i].clear();
            if (!*ports.valid || !*ports.ready) continue;
            words_[i].resize((ports.bytes + 3) / 4);
            std::memcpy(words_[i].data(), ports.data, ports.bytes);
            moves = true;
        }
        layer_->eval(true, true);
        return moves || !taken_.empty();
    }
    void end_cycle(Count cycle) override {
        for (Giver* giver : taken_) giver->taken();
        for (std::size_t i = 0; i < takers.size(); ++i)
            if (!words_[i].empty()) takers[i]->give(words_[i], cycle);
    }

  private:
    std::unique_ptr<qhw::Layer> layer_;
    std::vector<Giver*> taken_;
    std::vector<Row> words_;
};

// A layer whose words are known: only when it takes and gives them is simulated.
//
// FOLDER/plan holds, as text: the words of an image on each input; for each output the words of an image, for
// each of them how many of the image's words it needs of each input, and the bits of a word. FOLDER/out0...
// hold the words that it gives; those that it takes go to FOLDER/in0... It gives a word every PACE
// cycles at most, and takes what the next word but one needs: it holds two words, as a pipeline does.
class Replay : public Block {
  public:
    Replay(const std::string& folder, std::size_t inputs, std::size_t outputs, Count pace)
        : pace_(pace), images_(inputs), taken_(inputs), outputs_(outputs) {
        std::ifstream plan(folder + "/plan");
        for (Count& words : images_) plan >> words;
        for (std::size_t o = 0; o < outputs; ++o) {
            Count words = 0;
            plan >> words;
            outputs_[o].needs.resize(words * inputs);
            for (Count& need : outputs_[o].needs) plan >> need;
            unsigned bits = 0;
            plan >> bits;
            outputs_[o].file = opened(folder + "/out" + std::to_string(o), "rb");
            outputs_[o].row.resize(row_words(bits));
            outputs_[o].has = read_row(outputs_[o].file, outputs_[o].row);
        }
        if (!plan) fail("no plan in " + folder);
        for (std::size_t i = 0; i < inputs; ++i)
            files_.push_back(opened(folder + "/in" + std::to_string(i), "wb"));
    }
    void connected() override {
        if (givers.size() != images_.size() || takers.size() != outputs_.size())
            fail("a layer has streams that are not connected");
    }
    void drive(Count) override {}
    bool sample(Count cycle) override {
        bool moves = false;
        takes_.assign(givers.size(), false);
        gives_.assign(takers.size(), false);
        for (std::size_t i = 0; i < givers.size(); ++i) {
            bool wanted = true;
            for (const Output& output : outputs_)
                wanted = wanted && taken_[i] < need(output, output.index + 1, i);
            moves |= takes_[i] = wanted && givers[i]->offers(cycle);
        }
        for (std::size_t o = 0; o < takers.size(); ++o) {
            const Output& output = outputs_[o];
            bool ready = output.has && cycle >= output.next && takers[o]->takes();
            for (std::size_t i = 0; i < givers.size(); ++i)
                ready = ready && taken_[i] >= need(output, output.index, i);
            moves |= gives_[o] = ready;
        }
        return moves;
    }
    void end_cycle(Count cycle) override {
        for (std::size_t i = 0; i < givers.size(); ++i)
            if (takes_[i]) {
                write_row(files_[i], givers[i]->word());
                givers[i]->taken();
                ++taken_[i];
            }
        for (std::size_t o = 0; o < takers.size(); ++o)
            if (gives_[o]) {
                Output& output = outputs_[o];
                takers[o]->give(output.row, cycle);
                output.has = read_row(output.file, output.row);
                ++output.index;
                output.next = cycle + pace_;
            }
    }
    void close() {
        for (std::FILE* file : files_)
            if (std::fclose(file)) fail("a file could not be written");
    }

  private:
    struct Output {
        std::vector<Count> needs;
        std::FILE* file = nullptr;
        Row row;
        bool has = false;
        Count index = 0, next = 0;
    };
    Count need(const Output& output, Count index, std::size_t input) const {
        const Count words = output.needs.size() / images_.size();
        return output.needs[index % words * images_.size() + input] + index / words * images_[input];
    }
    Count pace_;
    std::vector<Count> images_, taken_;
    std::vector<Output> outputs_;
    std::vector<std::FILE*> files_;
    std::vector<bool> takes_, gives_;
};

template <typename T>
void connect(std::vector<T*>& ends, std::size_t port, T* end) {
    if (ends.size() <= port) ends.resize(port + 1);
    if (ends[port]) fail("a stream is connected twice");
    ends[port] = end;
}

}  // namespace

int main() {
    std::vector<std::unique_ptr<Block>> blocks;
    std::vector<std::unique_ptr<Source>> sources;
    std::vector<std::unique_ptr<Sink>> sinks;
    std::vector<std::unique_ptr<Queue>> queues;
    std::vector<Replay*> replays;
    Count patience = 0;
    for (std::string line, what; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string a, b;
        Count n[7];
        words >> what;
        if (what == "verilog" && words >> a >> b) {
            blocks.push_back(std::make_unique<Verilog>(a, b));
        } else if (what == "replay" && words >> a >> n[0] >> n[1] >> n[2]) {
            auto replay = std::make_unique<Replay>(a, n[0], n[1], n[2]);
            replays.push_back(replay.get());
            blocks.push_back(std::move(replay));
        } else if (what == "source" && words >> a >> n[0] >> n[1] >> n[2] >> n[3] >> n[4]) {
            sources.push_back(std::make_unique<Source>(a, n[0], n[3], n[4]));
            connect<Giver>(blocks.at(n[1])->givers, n[2], sources.back().get());
        } else if (what == "sink" && words >> a >> n[0] >> n[1] >> n[2] >> n[3]) {
            sinks.push_back(std::make_unique<Sink>(a, n[2], n[3]));
            connect<Taker>(blocks.at(n[0])->takers, n[1], sinks.back().get());
        } else if (what == "queue" && words >> n[0] >> n[1] >> n[2] >> n[3] >> n[4] >> n[5] >> n[6]) {
            queues.push_back(std::make_unique<Queue>(n[2], n[5], n[6]));
            connect<Taker>(blocks.at(n[0])->takers, n[1], queues.back().get());
            connect<Giver>(blocks.at(n[3])->givers, n[4], queues.back().get());
        } else if (what != "patience" || !(words >> patience)) {
            fail("a line that says nothing: " + line);
        }
    }
    for (const auto& block : blocks) block->connected();
    Count still = 0;
    int behind = 0;
    for (Count cycle = 0; still <= patience && behind < CYCLES_BEHIND; ++cycle) {
        bool moves = false, complete = true;
        for (const auto& block : blocks) block->drive(cycle);
        for (const auto& block : blocks) moves |= block->sample(cycle);
        for (const auto& block : blocks) block->end_cycle(cycle);
        for (const auto& queue : queues) queue->end_cycle();
        for (const auto& sink : sinks) complete = complete && sink->complete();
        still = moves ? 0 : still + 1;
        behind += complete;
    }
    for (Count cycle : sinks.at(0)->images()) std::cout << "image " << cycle << '\n';
    for (const auto& queue : queues) std::cout << "queue " << queue->most() << ' ' << queue->held() << '\n';
    for (const auto& sink : sinks) sink->close();
    for (Replay* replay : replays) replay->close();
    return 0;
}
