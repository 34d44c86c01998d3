// Counts to D; `belongs`: one of COUNT places, STEP apart, from START on.
module place #(
    parameter D = 8, START = 0, COUNT = 8, STEP = 1, W = D > 1 ? $clog2(D) : 1
) (
    input  clk, reset, step,
    output belongs, last
);
    localparam END = START + (COUNT - 1) * STEP + 1;
    generate
        if (D == 1) begin : one
            assign belongs = START == 0;
            assign last = 1'b1;
        end else begin : several
            wire [W-1:0] y;
            wire apart;
            cycle #(.D(D)) count (.clk(clk), .reset(reset), .enable(step), .y(y));
            assign last = y == D - 1;
            assign belongs = y >= START & y < END & apart;
            if (STEP == 1) begin : each
                assign apart = 1'b1;
            end else begin : some
                // Counts from START on, and starts again with every round of D.
                reg [$clog2(STEP)-1:0] since;
                assign apart = since == 0;
                always @(posedge clk)
                    if (reset) since <= 0;
                    else if (step)
                        since <= last | y < START | since == STEP - 1 ? 0 : since + 1'b1;
            end
        end
    endgenerate
endmodule
