// The running sum of integers in A bits, modulo 2^A; `first` starts a new sum with this one.
module accumulate #(
    parameter W = 8, S = 1, A = 16
) (
    input  clk, enable, first,
    input  [W-1:0] x,
    output reg [A-1:0] sum
);
    wire [A-1:0] wide;
    extend #(.W(W), .S(S), .WIDER(A)) extended (.x(x), .y(wide));
    always @(posedge clk) if (enable) sum <= (first ? {A{1'b0}} : sum) + wide;
endmodule
