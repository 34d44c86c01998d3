// The running sum of integers that come with a sign beside them, in A bits, modulo 2^A; `first` starts a new sum.
// A number is negated by inverting its bits and a carry into the sum: no adder of its own.
module accumulate_signed #(
    parameter W = 8, S = 0, A = 16
) (
    input  clk, enable, first, negative,
    input  [W-1:0] x,
    output reg [A-1:0] sum
);
    wire [A-1:0] wide;
    extend #(.W(W), .S(S), .WIDER(A)) extended (.x(x), .y(wide));
    wire [A-1:0] kept = first ? {A{1'b0}} : sum;
    // The lowest position of the chain makes the carry.
    wire [A:0] next = {kept, 1'b1} + {wide ^ {A{negative}}, negative};
    always @(posedge clk) if (enable) sum <= next[A:1];
endmodule
