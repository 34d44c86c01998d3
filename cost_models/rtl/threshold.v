// How many of T thresholds, rising from the lowest bits on, are not above x: the code of x. Latency 3.
module threshold #(
    parameter A = 12, T = 3, S = 1, WY = $clog2(T + 1)
) (
    input  clk, enable,
    input  [A-1:0] x,
    input  [T*A-1:0] thresholds,
    output reg [WY-1:0] y
);
    reg  [A-1:0] x_1;
    reg  [T-1:0] reached_2;
    wire [T-1:0] reached;
    wire [(1<<WY)-2:0] thermometer;
    wire [WY-1:0] count;
    genvar i;
    generate
        for (i = 0; i < T; i = i + 1) begin : level
            at_least #(.A(A), .S(S)) compare (.x(x_1), .y(thresholds[i*A+:A]), .result(reached[i]));
        end
    endgenerate
    extend #(.W(T), .S(0), .WIDER((1 << WY) - 1)) padded (.x(reached_2), .y(thermometer));
    thermometer_to_binary #(.W(WY)) encode (.x(thermometer), .y(count));
    always @(posedge clk) if (enable) begin
        x_1 <= x;
        reached_2 <= reached;
        y <= count;
    end
endmodule

// The number of ones below the first zero, of 2^W - 1 bits: each bit of it halves what is looked at.
module thermometer_to_binary #(
    parameter W = 2
) (
    input  [(1<<W)-2:0] x,
    output [W-1:0] y
);
    localparam HALF = 1 << (W - 1);
    generate
        if (W == 1) begin : leaf
            assign y = x;
        end else begin : node
            wire upper = x[HALF-1];
            wire [HALF-2:0] half = upper ? x[2*HALF-2:HALF] : x[HALF-2:0];
            wire [W-2:0] rest;
            thermometer_to_binary #(.W(W-1)) lower (.x(half), .y(rest));
            assign y = {upper, rest};
        end
    endgenerate
endmodule
