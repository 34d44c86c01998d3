// Valid and ready of one stream that has N readers: each takes a word when it can, all have before the next comes.
module fork_stream #(
    parameter N = 2
) (
    input  clk, reset, x_valid,
    input  [N-1:0] y_ready,
    output x_ready,
    output [N-1:0] y_valid
);
    reg  [N-1:0] taken;
    wire [N-1:0] done = taken | y_ready;
    assign y_valid = {N{x_valid}} & ~taken;
    assign x_ready = &done;
    always @(posedge clk)
        if (reset | (x_valid & x_ready)) taken <= 0;
        else if (x_valid) taken <= done;
endmodule
