// A board at SPI: module `board` in Verilator, its four pins driven as a controller of mode 0 does, bit by bit.
// Argument: clock cycles of half a bit. Standard input: transfers, each 4 bytes of its length, the lowest first, and so
// many bytes; standard output: as many bytes back. Ends when its input does.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include "Vboard.h"

static Vboard* top;

static void cycles(int count) {
    for (int i = 0; i < count; i++) {
        top->clk = 0;
        top->eval();
        top->clk = 1;
        top->eval();
    }
}

int main(int, char** arguments) {
    VerilatedContext context;
    context.randReset(2);
    top = new Vboard{&context};
    const int half = std::atoi(arguments[1]);
    top->cs = 1;
    top->sck = 0;
    top->mosi = 0;
#ifdef RELEASED
    top->button = RELEASED;
#endif
    cycles(64);
    for (;;) {
        uint8_t head[4];
        if (std::fread(head, 1, 4, stdin) != 4) return 0;
        const uint32_t length = head[0] | head[1] << 8 | head[2] << 16 | uint32_t(head[3]) << 24;
        top->cs = 0;
        cycles(half);
        for (uint32_t i = 0; i < length; i++) {
            const int given = std::getchar();
            int taken = 0;
            for (int bit = 7; bit >= 0; bit--) {
                top->mosi = given >> bit & 1;
                cycles(half);
                taken = taken << 1 | top->miso;
                top->sck = 1;
                cycles(half);
                top->sck = 0;
            }
            std::putchar(taken);
        }
        cycles(half);
        top->cs = 1;
        // The time between two transfers of a program.
        cycles(50 * half);
        std::fflush(stdout);
    }
}
