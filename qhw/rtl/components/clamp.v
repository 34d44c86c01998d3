// A number within [LOW, HIGH], else what stands for all below or above, in W bits. Latency 1.
module clamp #(
    parameter W = 8, S = 1,
    parameter [W-1:0] LOW = 0, HIGH = 0, BELOW = 0, ABOVE = 0
) (
    input  clk, enable,
    input  [W-1:0] x,
    output reg [W-1:0] y
);
    wire reaches_low, reaches_high;
    at_least #(.A(W), .S(S)) low (.x(x), .y(LOW), .result(reaches_low));
    at_least #(.A(W), .S(S)) high (.x(HIGH), .y(x), .result(reaches_high));
    always @(posedge clk) if (enable) y <= ~reaches_low ? BELOW : ~reaches_high ? ABOVE : x;
endmodule
