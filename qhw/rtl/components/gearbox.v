// A stream of A elements a word as one of B elements a word, of W bits each, in the same order.
module gearbox #(
    parameter A = 1, B = 4, W = 8
) (
    input  clk, reset, x_valid, y_ready,
    input  [A*W-1:0] x,
    output x_ready, y_valid,
    output [B*W-1:0] y
);
    // Elements that may be there: a multiple of words of one side, or some of both.
    localparam ROOM = A % B == 0 ? A : B % A == 0 ? B : A + B, WC = $clog2(ROOM + 1);
    reg  [ROOM*W-1:0] held;
    reg  [WC-1:0] count;
    wire push = x_valid & x_ready, pull = y_valid & y_ready;
    wire [WC-1:0] rest = pull ? count - B : count;
    assign y_valid = count >= B;
    assign y = held[B*W-1:0];
    generate
        if (A % B == 0) begin : narrower
            assign x_ready = count == 0 | (count == B & y_ready);
            always @(posedge clk)
                if (push) held <= x;
                else if (pull) held <= held >> B * W;
        end else if (B % A == 0) begin : wider
            assign x_ready = count != B | y_ready;
            always @(posedge clk) if (push) held <= {x, held} >> A * W;
        end else begin : uneven
            wire [ROOM*W-1:0] kept = pull ? held >> B * W : held;
            wire [ROOM*W-1:0] below = ~({ROOM*W{1'b1}} << rest * W);
            assign x_ready = count <= B;
            always @(posedge clk)
                if (push) held <= (kept & below) | ({{B*W{1'b0}}, x} << rest * W);
                else held <= kept;
        end
    endgenerate
    always @(posedge clk)
        if (reset) count <= 0;
        else count <= push ? rest + A : rest;
endmodule
