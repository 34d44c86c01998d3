// Valid and ready of a pipeline of D registers that move together: `enable` moves them, unless a word waits at the end.
module pipeline_control #(
    parameter D = 4
) (
    input  clk, reset, x_valid, y_ready,
    output x_ready, y_valid, enable
);
    reg [D-1:0] valid;
    assign y_valid = valid[D-1];
    assign enable = ~y_valid | y_ready;
    assign x_ready = enable;
    always @(posedge clk)
        if (reset) valid <= 0;
        else if (enable) valid <= {valid, x_valid};
endmodule
