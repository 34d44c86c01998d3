// W shift registers of D bits, of which one place is read: `place` 0 is the bit that came last.
module shift_register #(
    parameter D = 16, W = 8, WA = $clog2(D)
) (
    input  clk, shift,
    input  [WA-1:0] place,
    input  [W-1:0] x,
    output [W-1:0] y
);
    genvar i;
    generate
        for (i = 0; i < W; i = i + 1) begin : lane
            reg [D-1:0] bits;
            always @(posedge clk) if (shift) bits <= {bits[D-2:0], x[i]};
            assign y[i] = bits[place];
        end
    endgenerate
endmodule
