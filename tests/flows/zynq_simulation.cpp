// A shell in Verilator with memory at its streams, as AXI DMA in simple mode moves it, and a network in C++ where the
// shell holds none. Commands on standard input: see main(). Argument: the seed of the stalls.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <vector>
#include "Vshell.h"
#ifdef NETWORK
#include <map>
#include <string>
namespace nnet { // what hls4ml's traces of layers need
bool trace_enabled = false;
std::map<std::string, void *> *trace_outputs = nullptr;
size_t trace_type_size = sizeof(double);
} // namespace nnet
#include NETWORK_SOURCE
#endif

static uint64_t state;
static bool chance() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    // Quick and slow times take turns.
    return (state >> 40 & 255) < ((state >> 13 & 1) ? 250 : 60);
}

struct Sender {
    std::vector<uint8_t> bytes;
    size_t at = 0;
    bool there = false;
    bool idle() const { return at >= bytes.size(); }
};
struct Receiver {
    std::vector<uint8_t> bytes;
    size_t room = 0;
    bool active = false, ready = false;
};

struct Board {
    VerilatedContext context;
    Vshell top{&context};
    /*CHANNELS*/
#ifdef NETWORK
    std::deque<uint64_t> entering, leaving;
    std::deque<bool> last;
    bool showing = false;
#endif

    void cycle() {
#define SENDER(i, name)                                                                                               \
    send[i].there = send[i].there || (!send[i].idle() && chance());                                                   \
    top.name##_tvalid = send[i].there;                                                                                \
    if (send[i].there) {                                                                                              \
        top.name##_tdata = *reinterpret_cast<uint64_t *>(&send[i].bytes[send[i].at]);                                 \
        top.name##_tkeep = 255;                                                                                       \
        top.name##_tlast = send[i].at + 8 >= send[i].bytes.size();                                                    \
    }
#define RECEIVER(i, name)                                                                                             \
    receive[i].ready = receive[i].active && chance();                                                                 \
    top.name##_tready = receive[i].ready;
        /*SENDERS*/
        /*RECEIVERS*/
#undef SENDER
#undef RECEIVER
#ifdef NETWORK
        bool taking = chance();
        showing = !leaving.empty() && (showing || chance());
        top.x_axis_tready = taking;
        top.y_axis_tvalid = showing;
        top.y_axis_tkeep = 255;
        top.y_axis_tdata = showing ? leaving.front() : state;
        top.y_axis_tlast = showing && last.front();
#endif
        top.aclk = 0;
        top.eval();
#define SENDER(i, name)                                                                                               \
    if (send[i].there && top.name##_tready) {                                                                         \
        send[i].at += 8;                                                                                              \
        send[i].there = false;                                                                                        \
    }
#define RECEIVER(i, name)                                                                                             \
    if (receive[i].ready && top.name##_tvalid) {                                                                      \
        if (top.name##_tkeep != 255) std::exit(3);                                                                    \
        for (int b = 0; b < 8; b++) receive[i].bytes.push_back(top.name##_tdata >> 8 * b);                            \
        receive[i].active = !top.name##_tlast;                                                                        \
        /* AXI DMA reports an error where a packet is longer than the transfer. */                                    \
        if (receive[i].active && receive[i].bytes.size() >= receive[i].room) std::exit(4);                            \
    }
        /*SENDERS*/
        /*RECEIVERS*/
#ifdef NETWORK
        if (!top.network_resetn) {
            entering.clear(), leaving.clear(), last.clear(), showing = false;
        } else {
            if (top.x_axis_tvalid && taking) entering.push_back(top.x_axis_tdata);
            if (showing && top.y_axis_tready) leaving.pop_front(), last.pop_front(), showing = false;
            if (entering.size() == BEATS) run();
        }
#endif
        top.aclk = 1;
        top.eval();
    }

#ifdef NETWORK
    void run() {
        hls::stream<qhw::Beat> in("in"), out("out");
        for (uint64_t word : entering) {
            qhw::Beat beat;
            beat.data = word, beat.keep = -1, beat.strb = -1, beat.last = 0;
            in.write(beat);
        }
        entering.clear();
        NETWORK(in, out);
        if (!in.empty()) std::exit(5);
        while (!out.empty()) {
            qhw::Beat beat = out.read();
            if (beat.keep != 255 || beat.last != out.empty()) std::exit(6);
            leaving.push_back(beat.data.to_uint64()), last.push_back(beat.last != 0);
        }
    }
#endif

    void reset() {
        for (auto &one : send) one = {};
        for (auto &one : receive) one = {};
        top.s_axi_awvalid = top.s_axi_wvalid = top.s_axi_arvalid = top.s_axi_bready = top.s_axi_rready = 0;
        top.aresetn = 0;
        for (int i = 0; i < 8; i++) cycle();
        top.aresetn = 1;
    }
    uint32_t read(uint32_t offset) {
        top.s_axi_araddr = offset, top.s_axi_arvalid = 1;
        top.aclk = 0, top.eval();
        while (!top.s_axi_arready) cycle(), top.aclk = 0, top.eval();
        cycle();
        top.s_axi_arvalid = 0;
        while (!top.s_axi_rvalid || !chance()) cycle();
        uint32_t found = top.s_axi_rdata;
        top.s_axi_rready = 1, cycle(), top.s_axi_rready = 0;
        return found;
    }
    void write(uint32_t offset, uint32_t value) {
        // The address and the data come one after the other.
        top.s_axi_awaddr = offset, top.s_axi_awvalid = 1;
        while (!chance()) cycle();
        top.s_axi_wdata = value, top.s_axi_wstrb = 15, top.s_axi_wvalid = 1;
        top.aclk = 0, top.eval();
        while (!(top.s_axi_awready && top.s_axi_wready)) cycle(), top.aclk = 0, top.eval();
        cycle();
        top.s_axi_awvalid = top.s_axi_wvalid = 0;
        while (!top.s_axi_bvalid || !chance()) cycle();
        top.s_axi_bready = 1, cycle(), top.s_axi_bready = 0;
    }
};

template <class T> static T got() {
    T value;
    if (std::fread(&value, sizeof value, 1, stdin) != 1) std::exit(0);
    return value;
}
template <class T> static void put(T value) {
    std::fwrite(&value, sizeof value, 1, stdout);
    std::fflush(stdout);
}

// B: everything is reset. R address, W address value: registers. S engine size bytes: sends. V engine size: receives.
// P engine kind cycles: whether that channel is idle, once it is or after that many cycles. G engine: what it received.
int main(int, char **arguments) {
    state = 0x9e3779b97f4a7c15ull * std::strtoull(arguments[1], nullptr, 10) + 1;
    static Board board;
    board.context.randReset(2);
    board.reset();
    for (;;) {
        const char command = got<char>();
        if (command == 'B') {
            board.reset();
        } else if (command == 'R') {
            put(board.read(got<uint32_t>()));
        } else if (command == 'W') {
            const uint32_t offset = got<uint32_t>();
            board.write(offset, got<uint32_t>());
        } else if (command == 'S') {
            Sender &one = board.send[got<uint8_t>()];
            one = {};
            one.bytes.resize(got<uint32_t>());
            if (std::fread(one.bytes.data(), 1, one.bytes.size(), stdin) != one.bytes.size()) return 0;
        } else if (command == 'V') {
            Receiver &one = board.receive[got<uint8_t>()];
            one = {};
            one.room = got<uint32_t>();
            one.active = true;
        } else if (command == 'P') {
            const uint8_t engine = got<uint8_t>();
            const bool sends = got<char>() == 'S';
            uint32_t left = got<uint32_t>();
            auto idle = [&] { return sends ? board.send[engine].idle() : !board.receive[engine].active; };
            while (!idle() && left--) board.cycle();
            put<uint8_t>(idle());
        } else if (command == 'G') {
            const auto &bytes = board.receive[got<uint8_t>()].bytes;
            put<uint32_t>(bytes.size());
            std::fwrite(bytes.data(), 1, bytes.size(), stdout);
            std::fflush(stdout);
        }
    }
}
