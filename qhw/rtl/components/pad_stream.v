// An image within a larger one: its words in their places, FILL in all others.
module pad_stream #(
    parameter W = 8, R = 8, N = 8, C = 1, R0 = 0, R1 = 8, RS = 1, N0 = 0, N1 = 8, NS = 1, C0 = 0, C1 = 1, CS = 1,
    parameter [W-1:0] FILL = 0
) (
    input  clk, reset, x_valid, y_ready,
    input  [W-1:0] x,
    output x_ready, y_valid,
    output [W-1:0] y
);
    wire belongs;
    places #(
        .R(R), .N(N), .C(C), .R0(R0), .R1(R1), .RS(RS), .N0(N0), .N1(N1), .NS(NS), .C0(C0), .C1(C1), .CS(CS)
    ) walk (.clk(clk), .reset(reset), .step(y_valid & y_ready), .belongs(belongs));
    assign y_valid = ~belongs | x_valid;
    assign x_ready = belongs & y_ready;
    assign y = belongs ? x : FILL;
endmodule
