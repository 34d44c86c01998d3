// Bytes from and to an SPI controller (mode 0, the highest bit first), in pairs while `cs` is 0: a byte 1 and one that
// counts, or two zeros; the same both ways. The clock is sampled: `clk` has to be 8 times as fast at least.
// `valid` is 1 for one cycle; what is to be sent is taken with the first bit of a pair.
module spi_peripheral (
    input  clk, reset, sck, mosi, cs, x_valid,
    input  [7:0] x,
    output x_ready,
    output reg miso, valid,
    output reg [7:0] data
);
    reg  [2:0] clocks;          // the lines, brought to this clock
    reg  [1:0] bits, selects;
    reg  [3:0] place;           // bits of the pair that have come
    reg  [8:0] out;             // whether a byte goes out with this pair, and the byte
    reg  flag;                  // whether the byte that comes counts
    wire rises = ~selects[1] & ~clocks[2] & clocks[1];
    wire falls = ~selects[1] & clocks[2] & ~clocks[1];
    assign x_ready = rises & place == 0;
    always @(posedge clk) begin
        clocks <= {clocks, sck};
        bits <= {bits, mosi};
        selects <= {selects, cs};
        valid <= 1'b0;
        if (reset | selects[1]) begin
            place <= 0;
            miso <= 1'b0;
        end else if (rises) begin
            place <= place + 1'b1;
            data <= {data, bits[1]};
            if (place == 0) out <= {x_valid, x_valid ? x : 8'b0};
            if (place == 7) flag <= bits[1];
            valid <= place == 15 & flag;
        end else if (falls) begin
            // Seven zeros, then whether a byte follows.
            miso <= (place >= 7) & out[8];
            if (place >= 7) out <= out << 1;
        end
    end
endmodule
