// A board on a pseudo-terminal: module `board` in Verilator, its two serial pins wired to the terminal's bytes.
// Argument: clock cycles of a bit. Prints the terminal's name; ends when its standard input does.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>
#include "Vboard.h"

// Cycles without a byte after which the host is waited for, so that an idle board takes no processor.
static const uint64_t idle = 200000;

int main(int, char** arguments) {
    VerilatedContext context;
    context.randReset(2);
    Vboard top{&context};
    const int divider = std::atoi(arguments[1]);
    const int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (terminal < 0 || grantpt(terminal) || unlockpt(terminal)) return 2;
    // It stays open, so that the terminal outlives the hosts that come and go; its bytes are no text.
    const int other = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    termios settings;
    if (other < 0 || tcgetattr(other, &settings)) return 2;
    cfmakeraw(&settings);
    if (tcsetattr(other, TCSANOW, &settings)) return 2;
    std::printf("%s\n", ptsname(terminal));
    std::fflush(stdout);

    int to_send = 0, send_left = 0, send_bits = 0;       // a byte to the board: start bit, 8 bits, stop bit
    int wait = 0, taken_bits = 0, taken = 0;             // a byte from it, each bit read in its middle
    uint64_t quiet = 0;
    top.receive = 1;
#ifdef RELEASED
    top.button = RELEASED;
#endif
    for (;;) {
        if (!send_bits && (quiet % divider == 0)) {
            uint8_t byte;
            if (quiet > idle) {
                pollfd both[] = {{terminal, POLLIN, 0}, {0, POLLIN, 0}};
                if (poll(both, 2, 1) > 0 && both[1].revents) {
                    if (read(0, &byte, 1) <= 0) return 0;
                }
            }
            if (read(terminal, &byte, 1) == 1) {
                to_send = 0x200 | byte << 1;
                send_bits = 10;
                send_left = divider;
                quiet = 0;
            }
        }
        top.receive = send_bits ? to_send & 1 : 1;
        if (send_bits && --send_left == 0) {
            to_send >>= 1;
            send_bits--;
            send_left = divider;
        }
        top.clk = 0;
        top.eval();
        top.clk = 1;
        top.eval();
        quiet++;
        if (!taken_bits) {
            if (!top.transmit) {
                taken_bits = 9;
                wait = divider + divider / 2 - 1;
                taken = 0;
            }
        } else if (wait-- == 0) {
            quiet = 0;
            taken_bits--;
            wait = divider - 1;
            if (taken_bits) {
                taken = taken >> 1 | top.transmit << 7;
            } else {
                const uint8_t byte = taken;
                if (!top.transmit) return 3;
                while (write(terminal, &byte, 1) != 1) usleep(1000);
            }
        }
    }
}
