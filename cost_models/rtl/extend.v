// An integer in more bits: its sign is repeated (S=1), or zeros are put in front.
module extend #(
    parameter W = 4, S = 1, WIDER = 8
) (
    input  [W-1:0] x,
    output [WIDER-1:0] y
);
    generate
        if (WIDER == W) begin : same
            assign y = x;
        end else if (S) begin : sign
            assign y = {{(WIDER-W){x[W-1]}}, x};
        end else begin : zeros
            assign y = {{(WIDER-W){1'b0}}, x};
        end
    endgenerate
endmodule
